"""How one `LabelMap` becomes bytes, and back.

A payload is a palette of the map's distinct class ids, one palette slot for each of its K x H x W
entries, and the scores. Three codecs write it:

- `compact`: the probability of each entry as the nearest of 256 steps of its *square root*, then
  zstd. An entry errs by at most `sqrt(p) / 255 + 4e-6`, so a cell's distribution by at most
  `sqrt(K) / 510` in total variation (0.0044 for K = 5). Scores come back as log-probabilities with
  a `log_normalizer` of zero, ties in the order of their class ids; raw logits are gone.
- `exact`: scores as float16 and the normalizer as float32, zstd: lossless for float16 logits.
- `raw`: the same without zstd: larger, and the fastest to read.
"""

from __future__ import annotations

import struct
import threading
from typing import Any, get_args

import numpy as np
import torch
import zstandard
from numpy.typing import NDArray

from tokenlabel.choices import Codec
from tokenlabel.geometry.box import WHOLE, Box
from tokenlabel.labels.label_map import LabelMap

__all__ = ["Codec", "decode", "encode"]

_HEAD = struct.Struct("<BHHHI")  # flags, K, H, W, palette size
_EXTENT = struct.Struct("<4d")
_HAS_EXTENT, _HAS_NORMALIZER = 1, 2

_STEPS = 255
_LARGEST_SIDE = (1 << 16) - 1
_ZSTD_LEVEL = 19
_MOST_BYTES = 1 << 28  # of one unpacked label; a map of 512 x 512 cells, top 100, has half of it
_MAGIC = zstandard.FRAME_HEADER  # labels leave it out
# log-probability by the steps lost from 1; losing all stands for what rounds to 0, never for 0
_LOG_PROBABILITY = (2 * np.log(np.maximum(255 - np.arange(256), 0.25) / _STEPS)).astype(np.float32)

Array = NDArray[Any]


class _Zstd(threading.local):
    """zstd's contexts are cheap to reuse and unsafe to share between threads."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters.from_level(
                _ZSTD_LEVEL, write_content_size=True, format=zstandard.FORMAT_ZSTD1_MAGICLESS
            )
        ).compress
        self.decompress = zstandard.ZstdDecompressor(
            format=zstandard.FORMAT_ZSTD1_MAGICLESS
        ).decompress


_zstd = _Zstd()


def encode(label_map: LabelMap, codec: Codec) -> bytes:
    """The payload of a map. Raises ValueError where its numbers cannot be stored."""
    if codec not in get_args(Codec):
        raise ValueError(f"unknown codec {codec!r}: choose one of {', '.join(get_args(Codec))}")
    _check(label_map)
    palette, slots = np.unique(label_map.classes.cpu().numpy(), return_inverse=True)
    slots = slots.astype(_slot_dtype(len(palette))).reshape(label_map.scores.shape)
    flags, extent = 0, b""
    if label_map.extent != WHOLE:
        flags, extent = _HAS_EXTENT, _EXTENT.pack(*label_map.extent.as_tuple())
    if codec == "compact":
        body = _pack_roots(label_map, slots)
    else:
        body = slots.tobytes() + _pack_halves(label_map)
        flags |= _HAS_NORMALIZER if label_map.log_normalizer is not None else 0
    head = _HEAD.pack(flags, label_map.k, *label_map.grid, len(palette))
    payload = head + extent + _pack_palette(palette) + body
    return payload if codec == "raw" else _zstd.compress(payload)


def decode(payload: bytes | memoryview, codec: Codec, num_classes: int) -> LabelMap:
    """The map of a payload that `encode` wrote with the same codec. Raises ValueError for others."""
    try:
        if (
            codec != "raw"
            and zstandard.frame_content_size(_MAGIC + bytes(payload[:18])) > _MOST_BYTES
        ):
            raise ValueError(f"it unpacks to more than {_MOST_BYTES} bytes")
        data = payload if codec == "raw" else _zstd.decompress(payload)
        return _decode(data, codec, num_classes)
    except (struct.error, zstandard.ZstdError, IndexError) as error:
        raise ValueError(f"it is not a label of the {codec} codec ({error})") from None


def _decode(data: bytes | memoryview, codec: Codec, num_classes: int) -> LabelMap:
    flags, k, h, w, size = _HEAD.unpack_from(data)
    at, extent = _HEAD.size, WHOLE
    if flags & _HAS_EXTENT:
        extent = Box(*_EXTENT.unpack_from(data, at))
        at += _EXTENT.size
    palette = _unpack_palette(data, size, at)
    if size == 0 or int(palette[-1]) >= num_classes:
        raise ValueError(f"it names no class, or one beyond {num_classes}")
    at += 4 * size
    slots = np.frombuffer(data, _slot_dtype(size), k * h * w, at)
    at += slots.nbytes
    if codec == "compact":
        slots, scores = _unpack_roots(slots.reshape(h * w, k), data, at)
        normalizer = torch.zeros(h, w)
    else:
        scores = np.frombuffer(data, "<f2", k * h * w, at).astype(np.float32)
        normalizer = None
        if flags & _HAS_NORMALIZER:
            values = np.frombuffer(data, "<f4", h * w, at + 2 * k * h * w)
            normalizer = torch.from_numpy(values.astype(np.float32).reshape(h, w))
    return LabelMap(
        torch.from_numpy(scores.reshape(k, h, w)),
        torch.from_numpy(palette.take(slots).reshape(k, h, w)),
        normalizer,
        extent,
        num_classes,
    )


# -- the compact body: laid out so that zstd sees what varies slowly from cell to cell -----------


def _pack_roots(label_map: LabelMap, slots: Array) -> bytes:
    """Cell by cell: slots in rising order, then the change of their lost steps."""
    roots = label_map.probabilities().clamp(0, 1).sqrt().cpu().numpy()
    lost = (_STEPS - np.rint(roots * _STEPS)).astype(np.uint8)
    cells, lost = slots.reshape(len(slots), -1).T, lost.reshape(len(lost), -1).T  # [H * W, K]
    order = np.argsort(cells, axis=1, kind="stable")
    cells, lost = (np.take_along_axis(a, order, 1) for a in (cells, lost))
    changes = np.diff(lost, axis=0, prepend=np.uint8(0))  # wraps around at 256
    return cells.tobytes() + changes.tobytes()


def _unpack_roots(cells: Array, data: bytes | memoryview, at: int) -> tuple[Array, Array]:
    """Slots and log-probabilities [K, H * W], best first, of cells [H * W, K] in slot order."""
    changes = np.frombuffer(data, np.uint8, cells.size, at).reshape(cells.shape)
    # sorting (lost steps, slot) as one number: the slot in its low half, little-endian
    pairs = np.empty((*cells.shape, 2), cells.dtype)
    pairs[..., 0] = cells
    pairs[..., 1] = np.add.accumulate(changes, axis=0, dtype=np.uint8)
    pairs.view(f"<u{2 * cells.itemsize}")[..., 0].sort(axis=1)
    best_first = pairs.transpose(1, 0, 2)
    return best_first[..., 0], _LOG_PROBABILITY.take(best_first[..., 1])


def _pack_halves(label_map: LabelMap) -> bytes:
    with np.errstate(over="ignore"):
        halves = label_map.scores.cpu().numpy().astype("<f2")
    if not np.isfinite(halves).all():
        raise ValueError("scores beyond 65504 do not fit float16: use the compact codec")
    if label_map.log_normalizer is None:
        return halves.tobytes()
    return halves.tobytes() + label_map.log_normalizer.cpu().numpy().astype("<f4").tobytes()


def _pack_palette(palette: Array) -> bytes:
    """Steps between rising ids, as four planes of bytes: the high ones are nearly all zero."""
    return np.diff(palette, prepend=0).astype("<u4").view(np.uint8).reshape(-1, 4).T.tobytes()


def _unpack_palette(data: bytes | memoryview, size: int, at: int) -> Array:
    planes = np.frombuffer(data, np.uint8, 4 * size, at).reshape(4, size)
    return np.add.accumulate(planes.T.copy().view("<u4")[:, 0], dtype=np.int64)


def _check(label_map: LabelMap) -> None:
    numbers = (label_map.scores, label_map.log_normalizer)
    if not all(bool(n.isfinite().all()) for n in numbers if n is not None):
        raise ValueError("scores must be finite")
    if min(label_map.scores.shape) < 1 or max(label_map.scores.shape) > _LARGEST_SIDE:
        raise ValueError(f"a map needs 1 to {_LARGEST_SIDE} classes, rows and columns")
    low, high = int(label_map.classes.min()), int(label_map.classes.max())
    if low < 0 or high >= min(label_map.num_classes, 2**31):
        raise ValueError(f"classes must lie in [0, {label_map.num_classes}), got {low} to {high}")


def _slot_dtype(palette_size: int) -> str:
    return "<u1" if palette_size <= 1 << 8 else "<u2" if palette_size <= 1 << 16 else "<u4"
