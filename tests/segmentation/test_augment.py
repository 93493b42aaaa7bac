"""Image and mask go through one view; crops and colours keep their rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tokenlabel.errors import InputError
from tokenlabel.geometry import Box, View
from tokenlabel.geometry.nearest import render_nearest
from tokenlabel.geometry.render import render
from tokenlabel.segmentation.account import account_of
from tokenlabel.segmentation.augment import PairAugmentation, distort_colors, scaled_size
from tokenlabel.segmentation.classes import IGNORED
from tokenlabel.segmentation.loader import pair_loader
from tokenlabel.segmentation.pairs import open_pairs


def ramp(rows: int, cols: int) -> tuple[np.ndarray, np.ndarray]:
    """An image whose red is its column and whose green is its row, and a mask of their sum."""
    y, x = np.mgrid[:rows, :cols]
    image = np.stack([x * 2, y * 2, np.zeros_like(x)], -1).astype(np.uint8)
    return image, (x + y).astype(np.int16)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 1.0, 2.0]))
def test_image_and_mask_show_the_same_place(seed: int, scale: float) -> None:
    image, labels = ramp(90, 120)
    augment = PairAugmentation(
        crop=(40, 56), short_side=90, scale=(scale, scale), color=False, largest_share=1.0
    )
    pixels, seen = augment(image, labels, np.random.default_rng(seed))
    assert pixels.shape == (40, 56, 3)
    assert seen.shape == (40, 56)
    labelled = seen != IGNORED
    inner = labelled.copy()  # the antialiasing filter repeats pixels at the image's edge
    inner[[0, -1], :] = inner[:, [0, -1]] = False
    inner &= (seen > 4) & (seen < 200)
    place = pixels[..., :2].astype(float).sum(-1) / 2
    # the mask shows whole pixels, the image interpolates: half a pixel each way, and rounding
    assert np.abs(place - seen)[inner].max() <= 2.0


def test_nearest_takes_the_pixel_that_holds_the_centre() -> None:
    labels = np.arange(12, dtype=np.int16).reshape(3, 4)
    assert (render_nearest(labels, View.identity(), (3, 4), IGNORED) == labels).all()
    assert (render_nearest(labels, View.hflip(), (3, 4), IGNORED) == labels[:, ::-1]).all()
    twice = render_nearest(labels, View.identity(), (6, 8), IGNORED)
    assert (twice == labels.repeat(2, 0).repeat(2, 1)).all()
    beyond = render_nearest(labels, View.crop(Box(0, 0, 2, 1)), (3, 8), IGNORED)
    assert (beyond[:, :4] == labels).all()
    assert (beyond[:, 4:] == IGNORED).all()


def test_nearest_turns_as_the_image_does() -> None:
    labels = np.zeros((40, 60), np.int16)
    labels[10:30, 35:50] = 200
    view = View.rotation(25, 60 / 40)
    turned = render_nearest(labels, view, (40, 60), 0)
    picture = render(np.repeat(labels[..., None], 3, 2).astype(np.uint8), view, (40, 60))
    agree = (picture[..., 0] > 100) == (turned > 100)
    assert agree[view.valid_pixels((40, 60))].mean() > 0.98
    straight = render_nearest(labels, View.crop(Box(0.1, 0.2, 0.9, 1.1)), (33, 47), -1)
    slanted = View.crop(Box(0.1, 0.2, 0.9, 1.1)).then(View.shear(1e-9, 0, 1.0))
    assert not slanted.axis_aligned
    assert (render_nearest(labels, slanted, (33, 47), -1) == straight).mean() > 0.99


def test_small_images_are_filled_at_the_right_and_bottom() -> None:
    image = np.full((10, 12, 3), 200, np.uint8)
    labels = np.zeros((10, 12), np.int16)
    augment = PairAugmentation(
        crop=(32, 32), short_side=None, scale=(1, 1), hflip=0, color=False, fill=(1, 2, 3)
    )
    pixels, seen = augment(image, labels, np.random.default_rng(0))
    assert (pixels[:10, :12] == 200).all()
    assert (pixels[10:] == (1, 2, 3)).all()
    assert (pixels[:, 12:] == (1, 2, 3)).all()
    assert (seen[:10, :12] == 0).all()
    assert (seen == IGNORED).sum() == 32 * 32 - 120


def test_crops_of_one_class_are_drawn_again() -> None:
    labels = np.zeros((64, 256), np.int16)
    labels[:, 192:] = 1
    image = np.zeros((64, 256, 3), np.uint8)

    def shares(largest: float) -> np.ndarray:
        augment = PairAugmentation(
            crop=(64, 64), short_side=None, scale=(1, 1), largest_share=largest, color=False
        )
        seen = [augment(image, labels, np.random.default_rng(s))[1] for s in range(60)]
        return np.array([max((s == 0).mean(), (s == 1).mean()) for s in seen])

    assert (shares(1.0) >= 0.75).mean() > 0.3
    assert (shares(0.75) >= 0.75).mean() < 0.2  # (5/6)^10 of the draws find none in ten attempts


def test_unlabelled_pixels_do_not_count_as_a_class() -> None:
    """A crop that is mostly unlabelled, the rest even, is taken at once."""
    labels = np.full((70, 70), IGNORED, np.int16)
    labels[20:28, 20:28], labels[20:28, 28:36] = 0, 1
    augment = PairAugmentation(crop=(64, 64), short_side=None, scale=(1, 1))
    rng = np.random.default_rng(0)
    augment.draw_view(labels.shape, labels, rng)
    expected = np.random.default_rng(0)
    expected.uniform()  # scale
    expected.integers(7), expected.integers(7)  # one crop
    expected.random()  # flip
    assert rng.random() == expected.random()


def test_scaled_size_keeps_the_shape_within_the_limit() -> None:
    assert scaled_size((300, 400), 150) == (150, 200)
    assert scaled_size((300, 400), None, scale=0.5) == (150, 200)
    assert scaled_size((100, 1000), 512) == (205, 2048)


def test_colours_change_and_geometry_does_not() -> None:
    image, _ = ramp(60, 80)
    image[..., 2] = 90
    seen = [distort_colors(image, np.random.default_rng(seed)) for seed in range(24)]
    assert all(picture.shape == image.shape for picture in seen)
    means = np.array([picture.mean((0, 1)) for picture in seen])
    assert (means.std(0) > 3).all()
    untouched = [picture for picture in seen if (picture == image).all()]
    assert len(untouched) < 6


def test_batches_are_the_same_for_any_workers_and_ranks(scenes: Path) -> None:
    pairs = open_pairs(scenes, "training")
    augment = PairAugmentation(crop=(32, 32), short_side=48)
    whole = next(iter(pair_loader(pairs, augment, batch_size=4, seed=3).epoch(1, start=1)))
    worker = next(iter(pair_loader(pairs, augment, batch_size=4, seed=3, workers=1).epoch(1, 1)))
    assert torch.equal(whole.images, worker.images)
    assert torch.equal(whole.labels, worker.labels)
    parts = [
        next(iter(pair_loader(pairs, augment, batch_size=2, seed=3, rank=r, world=2).epoch(1, 1)))
        for r in range(2)
    ]
    assert torch.equal(whole.labels, torch.cat([part.labels for part in parts]))
    assert whole.keys == parts[0].keys + parts[1].keys


@pytest.mark.parametrize("workers", [1, 3])
def test_pixels_of_all_masks_are_counted(scenes: Path, workers: int) -> None:
    pairs = open_pairs(scenes, "training")
    masks = [np.asarray(Image.open(pair.mask)) for pair in pairs.items]
    expected = [sum(int((mask == value).sum()) for mask in masks) for value in (1, 2, 3)]
    assert account_of(pairs, workers=workers).pixels.tolist() == expected


def test_faults_of_a_sample_reach_the_caller_as_they_are(scenes: Path) -> None:
    for mask in (scenes / "annotations" / "training").iterdir():
        mask.write_bytes(b"nothing")
    pairs = open_pairs(scenes, "training")
    augment = PairAugmentation(crop=(32, 32))
    with pytest.raises(InputError, match="cannot read mask"):
        next(iter(pair_loader(pairs, augment, batch_size=2, workers=1)))
    with pytest.raises(InputError, match="8 images are fewer than one batch of 16"):
        pair_loader(pairs, augment, batch_size=16)
