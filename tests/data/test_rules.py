"""The rules by which a data set's images become pixels are found when it is opened, and kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tokenlabel.annotators.run import run
from tokenlabel.api.labels import labels_health
from tokenlabel.cli.view_batch import view_batch
from tokenlabel.data.decode import decode_image
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.data.loader import eval_loader
from tokenlabel.data.matching import labeled_samples
from tokenlabel.data.open import holdout, open_source
from tokenlabel.data.rules import AS_STORED, DecodeRules
from tokenlabel.data.source import read_by, require_labels
from tokenlabel.errors import InputError
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap, LabelStore

WHOLE = Preprocessing((8, 8), 1.0, "bilinear", (0.0,) * 3, (1.0,) * 3, "squash")


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """Two classes of 12-bit images: one of them so dark that 8 bits hold its values."""
    for name, level in (("dark", 160), ("light", 3200)):
        (tmp_path / name).mkdir()
        for i in range(3):
            values = np.full((8, 8), level + i, np.uint16)
            Image.fromarray(values).save(tmp_path / name / f"{i}.png")
    return tmp_path


@pytest.fixture
def turned(tmp_path: Path) -> Path:
    """Images whose left half is white, with the EXIF orientation that turns it to the top."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pixels = np.zeros((8, 16, 3), np.uint8)
        pixels[:, :8] = 255
        Image.fromarray(pixels).save(tmp_path / name / "x.png", exif=exif)
    return tmp_path


def test_deep_images_keep_their_differences_in_a_batch(deep: Path) -> None:
    source = open_source(str(deep))
    assert source.rules == DecodeRules(integers=(0, 4095), deep=True)
    assert source.found.ranges == {"I;16": (160, 3202)}
    assert "I;16 images of values 160 to 3202" in source.found.line()
    (batch,) = eval_loader(source, WHOLE, batch_size=6)
    levels = torch.tensor([160, 161, 162, 3200, 3201, 3202]) / 4095 * 255
    assert torch.allclose(batch.images.amax((1, 2, 3)), levels, rtol=1e-6)


def test_parts_of_a_data_set_keep_its_rules(deep: Path) -> None:
    source = open_source(str(deep))
    for part in (*holdout(source, 0.4, 0), require_labels(source, "here")):
        assert part.rules == source.rules


def test_a_model_is_shown_what_it_was_trained_on(deep: Path) -> None:
    """A dark part of the data, opened alone, keeps the range of the training images."""
    trained = open_source(str(deep)).rules
    for light in (deep / "light").iterdir():
        Image.fromarray(np.full((8, 8), 200, np.uint16)).save(light)
    alone = open_source(str(deep))
    assert alone.rules.integers == (0, 255)
    assert read_by(alone, trained).rules.integers == (0, 4095)
    applied = open_source(str(deep), orientation="apply")
    assert read_by(applied, trained).rules == DecodeRules((0, 4095), None, "apply", deep=True)
    first = replace(trained, deep=False)  # of a run that kept 8 bits of them
    assert read_by(alone, first).rules == first
    assert read_by(alone, AS_STORED).rules == alone.rules


def test_ordinary_images_have_no_rules_to_tell(turned: Path) -> None:
    source = open_source(str(turned))
    assert source.rules == AS_STORED
    assert source.found.modes == {"RGB": 2}


def test_orientation_is_said_and_applied_where_asked(turned: Path) -> None:
    left, top = (
        open_source(str(turned), orientation=orientation) for orientation in ("ignore", "apply")
    )
    assert "2 of 2 images looked into carry an EXIF orientation, which is ignored" in (
        left.found.line()
    )
    assert "which is applied" in top.found.line()
    (batch,) = eval_loader(left, WHOLE, batch_size=2)
    assert (batch.images[:, :, :, 0] == 255).all()
    assert (batch.images[:, :, :, -1] == 0).all()
    (batch,) = eval_loader(top, WHOLE, batch_size=2)
    assert (batch.images[:, :, 0] == 255).all()
    assert (batch.images[:, :, -1] == 0).all()


class Halves:
    """Cells of how light they are."""

    num_classes = 2
    class_names = ("a", "b")
    description = {"kind": "halves"}  # noqa: RUF012

    def batch_size(self) -> int:
        return 2

    def prepare(self, key: str, pixels: np.ndarray, orientation: int = 1) -> torch.Tensor:
        light = torch.from_numpy(pixels[..., 0] / 255.0).float()
        return torch.nn.functional.adaptive_avg_pool2d(torch.stack([light, 1 - light]), 2)

    def annotate(self, batch: list[torch.Tensor]) -> list[LabelMap]:
        return [LabelMap.from_logits(planes, 2, Box()) for planes in batch]


def test_labels_of_another_orientation_are_refused(turned: Path, tmp_path: Path) -> None:
    plain = open_source(str(turned))
    applied = open_source(str(turned), orientation="apply")
    run(applied, Halves(), tmp_path / "labels")  # type: ignore[arg-type]
    store = LabelStore(tmp_path / "labels")
    assert store.manifest.dataset["decode"]["orientation"] == "apply"
    assert store["a/x.png"].classes[0].tolist() == [[0, 0], [1, 1]]
    assert len(labeled_samples(applied, store)) == 2
    with pytest.raises(
        InputError, match=r"made with EXIF orientation 'apply', the images .*'ignore'"
    ):
        labeled_samples(plain, store)
    run(plain, Halves(), tmp_path / "plain")  # type: ignore[arg-type]
    store = LabelStore(tmp_path / "plain")
    assert "decode" not in store.manifest.dataset  # as in stores from before there was a choice
    with pytest.raises(InputError, match="made with EXIF orientation 'ignore'"):
        labeled_samples(applied, store)


def test_labels_are_looked_at_over_images_of_their_orientation(
    turned: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("out")
    run(open_source(str(turned), orientation="apply"), Halves(), out / "labels")  # type: ignore[arg-type]
    shown = view_batch(
        data=str(turned),
        labels=str(out / "labels"),
        model="test_vit",
        image_size=32,
        settings=(("data.orientation=apply", "data.holdout=0"),),
        output=out / "sheet.png",
    )
    assert shown.is_file()
    health = labels_health(labels=str(out / "labels"), data=str(turned))
    assert health.images == 2


def test_one_image_decodes_as_its_data_set_says(deep: Path) -> None:
    source = open_source(str(deep))
    assert decode_image(source.read(0), "dark", source.rules).max() == np.float32(160 / 4095 * 255)
