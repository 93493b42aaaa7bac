"""Fixtures that every test may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from hypothesis import settings
from PIL import Image

from tokenlabel.data.open import open_source
from tokenlabel.data.source import ImageSource
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap, LabelStore, LabelStoreWriter

constants.HF_HUB_OFFLINE = True  # no test asks a network

# the same examples in every run; `--hypothesis-profile default` explores others
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

RELEASED = Path(__file__).resolve().parent / "fixtures" / "released"
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests run several at once: one thread each keeps two cores busy and results repeatable."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the package keeps between runs is not the user's."""
    os.environ["TOKENLABEL_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _without_sheets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's pictures take longer than the small runs of tests: drawn where they are looked at."""
    sheets = sys.modules.get("tokenlabel.training.sheets")
    if sheets is not None and request.node.get_closest_marker("sheets") is None:
        monkeypatch.setattr(sheets.Sheets, "on_start", lambda *_: None)
        monkeypatch.setattr(sheets.Sheets, "on_end", lambda *_: None)


@pytest.fixture(scope="session")
def released_numbers() -> Path:
    """Folder of what the released code computes (see its README)."""
    return RELEASED


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference inputs and outputs that developers keep beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("needs the developers' reference data (../shared), which is not here")
    return SHARED


MakeLabels = Callable[..., LabelStore]


@pytest.fixture
def source(tmp_path: Path) -> ImageSource:
    """26 smooth images of different shapes in 4 classes."""
    rng = np.random.default_rng(0)
    for i in range(26):
        size = (int(rng.integers(40, 90)), int(rng.integers(40, 90)))
        coarse = rng.integers(0, 256, (5, 5, 3)).astype(np.uint8)
        path = tmp_path / "images" / f"class{i % 4}" / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, quality=95)
    return open_source(str(tmp_path / "images"))


@pytest.fixture
def make_labels(tmp_path: Path, source: ImageSource) -> MakeLabels:
    """Writes a store of random labels for `source`, with such defects as are asked for."""

    def make(
        classes: int = 4,
        class_names: tuple[str, ...] | None = None,
        missing: Collection[str] = (),
        left_out: Collection[str] = (),
    ) -> LabelStore:
        folder = tmp_path / f"labels{len(list(tmp_path.iterdir()))}"
        generator = torch.Generator().manual_seed(0)
        with LabelStoreWriter(folder, num_classes=classes, class_names=class_names) as writer:
            for key in source.keys:
                logits = torch.randn(classes, 6, 5, generator=generator) * 3
                if key in left_out:
                    writer.leave_out(key, "unreadable")
                elif key not in missing:
                    writer.add(key, LabelMap.from_logits(logits, 3, Box()))
        return LabelStore(folder)

    return make
