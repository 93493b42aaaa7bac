"""The networks that label images in `proof/`, and how students that begin with weights learn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PRETRAINED = "tf_efficientnet_lite0"  # of ImageNet; its weights are given as a file
PRETRAINED_SIDE = 256  # pixels it labels images at: 32 for each token of the students
TEACHING = {"opt": "muon", "lr": 6e-3}  # from random weights
FINE_TUNING = 2e-3  # learning rate of students that begin with weights: a third of the recipes'


@dataclass(frozen=True)
class Network:
    """A timm classifier with other arguments than its own."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def options(self) -> tuple[str, ...]:
        """As options of `teach`."""
        given = ((name, json.dumps(v, separators=(",", ":"))) for name, v in self.arguments.items())
        return ("--model", self.name, "--model-kwargs", *(word for pair in given for word in pair))


# 2.4 M parameters, an eighth of its input's resolution
SMALL = Network("resnet10t", {"output_stride": 8, "channels": [64, 128, 256, 256]})
LARGE = Network("resnet18", {"output_stride": 8})  # 11 M parameters
# its first blocks keep most of the resolution of images that are enlarged three- or fourfold
STRONG = Network("resnet18", {"output_stride": 16})
