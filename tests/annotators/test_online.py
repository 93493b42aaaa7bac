"""Views of a training step are labeled where they are, as the same pictures in files would be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokenlabel import Box, View, token_targets
from tokenlabel.annotators.image_model import ImageAnnotator
from tokenlabel.annotators.kinds import build_annotator
from tokenlabel.annotators.online import OnlineLabels
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.errors import InputError

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
    ),
]


class Colors(nn.Module):
    """Six scores of each cell of 8 pixels: its colors, and their differences from gray."""

    def forward(self, images: Tensor) -> Tensor:
        means = nn.functional.avg_pool2d(images, 8).permute(0, 2, 3, 1)
        return torch.cat([means, (means - 0.5).abs()], -1) * 3


def colors(size: tuple[int, int], fit: Any = "squash", **options: Any) -> ImageAnnotator:
    shown = Preprocessing(
        size, 0.9 if fit == "crop" else 1.0, "bicubic", (0.0,) * 3, (1.0,) * 3, fit, 8
    )
    return ImageAnnotator(Colors(), 6, shown, top_k=3, **options)


def views(height: int, width: int) -> Tensor:
    random = torch.Generator().manual_seed(3)
    coarse = torch.rand(5, 3, 5, 7, generator=random) * 255
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return smooth.clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("fit", ["squash", "crop", "keep"])
@pytest.mark.parametrize("size", [(32, 32), (40, 64), (24, 16)])
def test_views_are_labeled_as_pictures_are(device: str, fit: str, size: tuple[int, int]) -> None:
    annotator, batch = colors(size, fit, device=device), views(32, 48)
    pictures = [picture.numpy() for picture in batch.permute(0, 2, 3, 1)]
    stored = annotator.annotate([annotator.prepare("", picture) for picture in pictures])
    online = OnlineLabels(annotator)(batch.to(device))
    for here, there in zip(online, stored, strict=True):
        assert here.scores.device.type == device
        assert here.extent.as_tuple() == pytest.approx(there.extent.as_tuple())
        same = (here.classes.cpu() == there.classes).float().mean()
        assert same > 0.9  # equal but where two classes are as good as equal
        # a gray level of the inputs is 3 / 255 of a score
        torch.testing.assert_close(here.scores.cpu(), there.scores, atol=0.02, rtol=0)


def test_an_annotator_has_its_own_batch() -> None:
    batch, sizes = views(32, 32), []
    annotator = colors((32, 32), views_at_once=2)
    annotator._scores.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    parts = OnlineLabels(annotator)(batch)
    assert sizes == [2, 2, 1]
    for part, whole in zip(parts, OnlineLabels(colors((32, 32)))(batch), strict=True):
        torch.testing.assert_close(part.scores, whole.scores)


def test_nothing_is_fetched_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(*_: Any) -> Any:
        raise AssertionError("fetched from the device")

    batch = views(32, 32)
    for name in ("cpu", "numpy", "tolist"):
        monkeypatch.setattr(Tensor, name, fetched)
    maps = OnlineLabels(colors((40, 40)))(batch)
    target = token_targets(maps, [View.identity()] * 5, (4, 4))
    assert target.excess.shape[:2] == (5, 17)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["probability", "released"])
def test_targets_are_made_where_the_labels_are(device: str, kind: Any) -> None:
    shown = [
        View.crop(Box(0.1, 0.2, 0.9, 0.7)),
        View.crop(Box(0.0, 0.3, 0.5, 1.0)).then(View.hflip()),
        View.rotation(20, 1.5),
        View.identity(),
        View.shear(0.2, 0.1, 1.5),
    ]
    here = token_targets(colors((32, 32)).label_views(views(32, 32)), shown, (3, 4), kind)
    there = token_targets(
        colors((32, 32), device=device).label_views(views(32, 32).to(device)), shown, (3, 4), kind
    )
    assert {t.device.type for t in (there.classes, there.excess, there.mask)} == {device}
    torch.testing.assert_close(there.to("cpu").dense(), here.dense(), atol=1e-5, rtol=0)


def test_what_knows_places_in_stored_images_labels_no_views(tmp_path: Any) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}')
    annotator = build_annotator({"kind": "boxes", "file": str(boxes)}, class_names=["cat"])
    with pytest.raises(InputError, match="annotate the images first"):
        OnlineLabels(annotator)
