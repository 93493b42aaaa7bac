"""What comes with weights about their input is checked before an image is shown."""

from __future__ import annotations

from typing import Any

import pytest
import timm

from tokenlabel.data.inputs import Preprocessing
from tokenlabel.errors import InputError


@pytest.mark.parametrize(
    "change",
    [
        {"mean": ("x", "y", "z")}, {"mean": 0.5}, {"mean": (0.5,)}, {"std": (0, 0, 0)},
        {"std": (1.0, float("nan"), 1.0)}, {"mean": (0.5, 0.5, 10**400)},
        {"crop_pct": 1e-9}, {"crop_pct": -1.0}, {"crop_pct": "a"},
        {"input_size": (3, 10**6, 10**6)}, {"input_size": (3, 0, 32)},
    ],
)  # fmt: skip
def test_settings_that_show_no_image_are_one_line(change: dict[str, Any]) -> None:
    model = timm.create_model("test_resnet")
    Preprocessing.of_timm(model)
    model.pretrained_cfg = {**model.pretrained_cfg, **change}
    with pytest.raises(InputError) as told:
        Preprocessing.of_timm(model)
    assert "\n" not in str(told.value)
