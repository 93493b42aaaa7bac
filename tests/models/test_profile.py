"""What a student costs is counted, not estimated."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tokenlabel.cli.models import models
from tokenlabel.errors import InputError
from tokenlabel.models import create_model
from tokenlabel.models.profile import measure_throughput, profile


def test_counts_agree_with_the_arithmetic() -> None:
    with torch.device("meta"):
        model = create_model("lvvit_t", 10, img_size=(32, 64), depth=1)
    found = profile(model)
    assert (found.image_size, found.grid) == ((32, 64), (2, 4))
    assert found.parameters == sum(p.numel() for p in model.parameters())
    n, d = 9, 240
    stem = 16 * 32 * 64 * (3 * 49 + 2 * 64 * 9) + 8 * d * 64 * 64
    block = n * d * (3 * d + d + 2 * 3 * d) + 2 * n * n * d
    assert found.flops == 2 * (stem + block + d * 10 + 8 * d * 10)


def test_throughput_counts_images() -> None:
    assert measure_throughput(nn.Flatten(), torch.zeros(4, 3, 8, 8), seconds=0.05) > 100


def test_models_lists_names_sizes_and_costs(capsys: pytest.CaptureFixture[str]) -> None:
    models(pattern="test_vit", throughput=True, batch_size=1)
    shown = capsys.readouterr().out
    assert "test_vit" in shown
    assert "160x160" in shown
    assert "10x10" in shown
    with pytest.raises(InputError, match="no model is named like"):
        models(pattern="nothing_like_this")
