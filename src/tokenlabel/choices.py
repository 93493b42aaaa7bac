"""Literals that the command line and the library share. Nothing is imported here but types."""

from __future__ import annotations

from typing import Literal

__all__ = [
    "PRECISION",
    "Arithmetic",
    "Benchmark",
    "Cache",
    "Codec",
    "Device",
    "Fit",
    "ModelArguments",
    "Orientation",
    "Packing",
]

Arithmetic = Literal["auto", "float32", "bfloat16", "float16"]
"""Of a network: auto is bfloat16 on GPUs that have it, float16 on older ones. On a CPU it is the
quicker of float32 and bfloat16, by a short trial; see `tokenlabel.models.arithmetic`."""

PRECISION = {"auto": "auto", "float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""The same as recipes name it (`engine.precision`)."""

Benchmark = Literal[
    "folder",
    "imagenet",
    "imagenet-real",
    "imagenet-v2",
    "imagenet-a",
    "imagenet-r",
    "imagenet-sketch",
]
"""How the right answers are found; see `tokenlabel.evaluation.benchmarks`."""

Cache = Literal["auto", "none", "ram", "disk", "device"]
"""Where decoded images are kept; see `tokenlabel.data.cache` and `tokenlabel.data.resident`."""

Codec = Literal["compact", "exact", "raw"]
"""How a label store keeps a map; see `tokenlabel.labels.codec`."""

Device = Literal["auto", "cpu"]
"""auto takes a GPU where there is one."""

Fit = Literal["crop", "squash", "keep"]
"""How an image of any shape becomes an input; see `tokenlabel.data.inputs.Preprocessing`."""

ModelArguments = dict[str, int | float | bool | str]
"""Arguments of timm models by name; a list is written as YAML writes it: channels [64,128]."""

Orientation = Literal["ignore", "apply"]
"""Whether EXIF orientations are applied."""

Packing = Literal["jpeg", "raw"]
"""How images are kept in packed tars; see `tokenlabel.data.pack`."""
