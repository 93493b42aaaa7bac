"""`Texts`: many strings as two arrays, which processes share and a fork does not copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["Texts"]

_BLOCK = 1 << 16


class Texts(Sequence[str]):
    """Strings one after another in UTF-8, and where each ends. Equal to any sequence of the same."""

    def __init__(self, content: bytes | memoryview, ends: NDArray[np.unsignedinteger]) -> None:
        """`ends` [N] are rising byte positions in `content`."""
        self.content, self.ends = content, ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """The strings as they are given; a `Texts` is returned itself."""
        if isinstance(texts, Texts):
            return texts
        encoded = [text.encode() for text in texts]
        return cls(b"".join(encoded), np.cumsum([len(text) for text in encoded], dtype="<u8"))

    def take(self, numbers: Sequence[int] | NDArray[np.integer]) -> Texts:
        """The strings of these numbers, in their order."""
        return Texts.of(self[int(number)] for number in numbers)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        if number < 0:
            number += len(self)
        if not 0 <= number < len(self):
            raise IndexError(f"no string {number} of {len(self)}")
        start = int(self.ends[number - 1]) if number else 0
        return str(self.content[start : int(self.ends[number])], "utf-8", "replace")

    def __iter__(self) -> Iterator[str]:
        start = 0
        for first in range(0, len(self), _BLOCK):  # plain numbers are read faster by blocks
            for end in self.ends[first : first + _BLOCK].tolist():
                yield str(self.content[start:end], "utf-8", "replace")
                start = end

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"Texts({len(self)}: {shown}{', ...' if len(self) > 3 else ''})"
