"""`Vocabulary`: visual words, the groups into which an annotator's patch features fall.

A label store of words keeps it as `vocabulary.safetensors` beside its shards; the manifest names its
sha256. The file holds `centers` [V, D], `mean` [D] and `temperature` [], all float32, and in its
metadata, as JSON under "tokenlabel", how it was made.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from tokenlabel.errors import InputError
from tokenlabel.files import write_atomically
from tokenlabel.text import read_json

__all__ = ["FILE_NAME", "Vocabulary"]

FILE_NAME = "vocabulary.safetensors"
_METADATA = "tokenlabel"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """V visual words. `made` says how they were learned: JSON, with the network's `weights_sha256`."""

    centers: Tensor  # [V, D] float32, unit vectors
    mean: Tensor  # [D] float32: of the features, taken off before their direction counts
    temperature: float  # of the softmax over cosines
    made: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.centers)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} words of {self.centers.shape[1]} features)"

    def directions(self, features: Tensor) -> Tensor:
        """Unit vectors [..., D] of features [..., D]."""
        return F.normalize(features.float() - self.mean.to(features.device), dim=-1)

    def scores(self, features: Tensor) -> Tensor:
        """Logits [..., V] of the words for features [..., D]: cosines over the temperature."""
        return self.directions(features) @ self.centers.to(features.device).T / self.temperature

    @cached_property
    def content(self) -> bytes:
        """The file: equal vocabularies have equal bytes."""
        tensors = {
            "centers": self.centers.float().contiguous(),
            "mean": self.mean.float().contiguous(),
            "temperature": torch.tensor(self.temperature),
        }
        return save(tensors, {_METADATA: json.dumps(self.made, sort_keys=True)})

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def save(self, folder: Path) -> None:
        write_atomically(folder / FILE_NAME, self.content)

    @classmethod
    def load(cls, path: Path, sha256: str | None = None) -> Vocabulary:
        """The vocabulary of a file. Raises InputError where it is damaged, or not that of the hash."""
        try:
            if sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                raise InputError(f"{path} is damaged: its checksum does not match the manifest")
            with safe_open(path, "pt") as file:
                made = read_json((file.metadata() or {}).get(_METADATA, "{}"), str(path), kind=dict)
                found = {name: file.get_tensor(name) for name in ("centers", "mean", "temperature")}
        except FileNotFoundError:
            raise InputError(f"{path} is missing: the visual words of the labels") from None
        except SafetensorError as error:
            raise InputError(f"{path} is not a vocabulary: {error}") from None
        centers, mean, temperature = found["centers"], found["mean"], found["temperature"]
        fits = (
            centers.ndim == 2
            and len(centers) > 0
            and mean.shape == centers.shape[1:]
            and temperature.numel() == 1
            and all(t.dtype == torch.float32 and bool(t.isfinite().all()) for t in found.values())
        )
        if not fits or float(temperature) <= 0:
            raise InputError(f"{path} is damaged: its centers, mean and temperature do not fit")
        return cls(centers, mean, float(temperature), made)
