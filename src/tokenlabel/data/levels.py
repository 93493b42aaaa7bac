"""From the values of a stored image, of any depth and channels, to those that a model is shown."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenlabel.errors import InputError
from tokenlabel.geometry.render import Pixels

__all__ = [
    "ARRAY_MAGIC",
    "ChannelsError",
    "UnreadableError",
    "ValueRange",
    "array_kind",
    "extremes",
    "gray_of",
    "read_array",
    "reason_of",
    "scaled",
    "value_range",
    "with_channels",
]

ValueRange = tuple[float, float]

ARRAY_MAGIC = b"\x93NUMPY"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_DEPTHS = (8, 10, 12, 14, 16, 24, 32)  # bits of the sensors and files that there are
_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in gray; ITU-R BT.601, as Pillow


class ChannelsError(InputError):
    """An image has other channels than are asked for."""


class UnreadableError(InputError):
    """An image or a mask (`what`) cannot be decoded; `reason` says why, in a few words."""

    def __init__(self, what: str, name: str, reason: str) -> None:
        super().__init__(what, name, reason)  # all of them: to unpickle it
        self.what, self.name, self.reason = what, name, reason

    def __str__(self) -> str:
        line = f"cannot read {self.what} {self.name}: {self.reason}; repair or remove the file"
        if self.what == "mask":  # doctor looks at images alone
            return line
        return f"{line}; `tokenlabel doctor --data DIR` lists all such images"


def reason_of(error: InputError) -> str:
    """Why an image is left out, where its name stands beside."""
    return error.reason if isinstance(error, UnreadableError) else str(error)


def array_kind(data: bytes, name: str) -> tuple[tuple[int, int, int], np.dtype[Any]]:
    """Shape [H, W, C] and type of a `.npy` file's array, from its header.

    Raises InputError naming `name` for anything but numbers [H, W] or [H, W, C].
    """
    shape, _, kind, _ = _header(data, name)
    return shape, kind


def read_array(data: bytes, name: str) -> NDArray[Any]:
    """The array [H, W, C] of a `.npy` file; nothing in the file is executed. Raises InputError."""
    shape, fortran, kind, start = _header(data, name)
    if len(data) - start < math.prod(shape) * kind.itemsize:
        raise UnreadableError("image", name, "it was cut short")
    values = np.frombuffer(data, kind, math.prod(shape), start)
    return np.array(values.reshape(shape, order="F" if fortran else "C"), order="C")


def _header(data: bytes, name: str) -> tuple[tuple[int, int, int], bool, np.dtype[Any], int]:
    file = io.BytesIO(data)
    try:
        shape, fortran, kind = _HEADERS[np.lib.format.read_magic(file)](file)
    except Exception as error:  # whatever NumPy's reader raises for a damaged header
        raise UnreadableError("image", name, "it is not a .npy file of numbers") from error
    if len(shape) not in (2, 3) or min(shape) < 1 or kind.kind not in "uif":
        raise UnreadableError(
            "image",
            name,
            f"it holds {kind} {list(shape)}, and an image is an array of numbers [height, width,"
            " channels]",
        )
    height, width, channels = (*shape, 1)[:3]
    return (height, width, channels), fortran, kind, file.tell()


def with_channels(
    values: NDArray[Any], wanted: int, name: str, chosen: Sequence[int] | None = None
) -> NDArray[Any]:
    """`wanted` channels of an image [H, W, C], of which some may be `chosen` first, by number.

    One channel becomes three equal ones where three are wanted. Raises ChannelsError for any other
    count.
    """
    found = values.shape[2]
    if chosen is not None:
        if not all(0 <= channel < found for channel in chosen):
            raise ChannelsError(
                f"image {name} has channels 0 to {found - 1}, and {list(chosen)} are chosen"
            )
        values = values[..., list(chosen)]
    if values.shape[2] == wanted:
        return values
    if values.shape[2] == 1 and wanted == 3:
        return np.repeat(values, 3, axis=2)
    advice = f", or choose {wanted} of them (--channels)" if found > wanted else ""
    raise ChannelsError(
        f"image {name} has {values.shape[2]} channels, and the model takes {wanted}: take a model of"
        f" as many (--in-chans){advice}"
    )


def gray_of(values: NDArray[Any]) -> NDArray[Any]:
    """The brightness [H, W, 1] of colors [H, W, 3]."""
    gray: NDArray[np.float64] = values @ np.asarray(_LUMA)
    return (gray if values.dtype.kind == "f" else gray.round()).astype(values.dtype)[..., None]


def extremes(values: NDArray[Any]) -> ValueRange:
    """The least and the largest of the values that are finite numbers; 0 and 0 where none is."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def value_range(low: float, high: float, *, floats: bool) -> ValueRange:
    """The black and the white of a data set whose values lie from `low` to `high`.

    Integers: 0 and the largest value of the least usual bit depth that holds them (12 bits: 4095).
    Floats: 0 to 1, or 0 to 255, where all values lie there. Else the least and the largest value.
    """
    if low >= 0:
        whites = (1.0, 255.0) if floats else tuple(2.0**bits - 1 for bits in _DEPTHS)
        white = next((white for white in whites if high <= white), None)
        if white is not None:
            return 0.0, white
    return low, high


def scaled(values: NDArray[Any], found: ValueRange | None, *, deep: bool) -> Pixels:
    """Values of more than 8 bits from 0 to 255, where their range is `found`, else their own.

    `deep` keeps what lies between two levels. Without it, integers become bytes by whole bits.
    """
    floats = values.dtype.kind == "f"
    low, high = found or value_range(*extremes(values), floats=floats)
    values = np.nan_to_num(values, posinf=high, neginf=low) if floats else values
    shifted = values.astype(np.float64) - low
    if deep or floats:
        levels = shifted * (255 / max(high - low, 1e-12))
        levels = levels if deep else np.rint(levels)
    else:
        levels = np.floor(shifted * (256 / (high - low + 1)))
    return np.ascontiguousarray(levels.clip(0, 255).astype(np.float32 if deep else np.uint8))
