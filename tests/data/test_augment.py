"""Augmentation is drawn as timm and torchvision draw it, step by step."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import (
    NAME_TO_OP,
    AugmentOp,
    auto_augment_transform,
    rand_augment_transform,
)
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import ColorJitter

from tokenlabel.data.augment import Augmentation
from tokenlabel.data.policy import AugMixture, Operation, parse_policy
from tokenlabel.errors import InputError
from tokenlabel.geometry import View

GREY = (128, 128, 128)
SOURCE = (300, 400)
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


class Trace:
    """Stands for an image; timm's operations on it gather a matrix, output to source pixels."""

    size = (SOURCE[1], SOURCE[0])

    def __init__(self, matrix: NDArray[np.float64] | None = None) -> None:
        self.matrix = np.eye(3) if matrix is None else matrix

    def after(self, name: str, amount: float) -> Trace:
        """What Pillow does for an operation, in its own terms."""
        (width, height), step = self.size, np.eye(3)
        if name == "Rotate":  # counter-clockwise about the centre
            turn, (x, y) = math.radians(amount), (width / 2, height / 2)
            step[:2, :2] = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
            step[:2, 2] = [x, y] - step[:2, :2] @ [x, y]
        elif name == "ShearX":
            step[0, 1] = amount
        elif name == "ShearY":
            step[1, 0] = amount
        elif name == "TranslateXRel":
            step[0, 2] = amount * width
        elif name == "TranslateYRel":
            step[1, 2] = amount * height
        return Trace(self.matrix @ step)


def traced(ops: list[AugmentOp]) -> None:
    for op in ops:
        name = op.name
        op.aug_fn = lambda image, *args, name=name, **_: image.after(name, *args[:1] or (0.0,))


def timm_corners(policy: str, count: int) -> NDArray[np.float64]:
    """Source fractions of the output's corners, drawn by timm: policy, then crop, then flip."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - what timm draws from
    if policy.startswith("rand"):
        transform = rand_augment_transform(policy, {"img_mean": GREY})
        traced(transform.ops)
    else:
        transform = auto_augment_transform(policy, {"img_mean": GREY})
        traced([op for sub_policy in transform.policy for op in sub_policy])
    image = Image.new("RGB", (SOURCE[1], SOURCE[0]))
    found = []
    for _ in range(count):
        matrix = transform(Trace()).matrix
        crop = RandomResizedCropAndInterpolation.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3))
        top, left, height, width = crop
        points = CORNERS * [width, height] + [left, top]
        if random.random() < 0.5:
            points = points[[1, 0, 3, 2]]
        found.append((points @ matrix[:2, :2].T + matrix[:2, 2]) / [SOURCE[1], SOURCE[0]])
    return np.array(found)


def our_corners(policy: str, count: int) -> NDArray[np.float64]:
    augmentation, rng = Augmentation(policy=policy), np.random.default_rng(0)
    draws = (augmentation.draw(SOURCE, (224, 224), rng) for _ in range(count))
    return np.array([drawn.view.source_points(CORNERS) for drawn in draws])


def largest_gap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The Kolmogorov-Smirnov distance of two samples."""
    points = np.sort(np.concatenate([a, b]))
    below = [np.searchsorted(np.sort(x), points, "right") / len(x) for x in (a, b)]
    return float(np.abs(below[0] - below[1]).max())


@pytest.mark.parametrize(
    "policy", ["rand-m9-mstd0.5-inc1", "rand-m7-n3-p0.9-tweights-mstd101", "original-mstd0.5", "v0"]
)
def test_corners_go_where_timm_sends_them(policy: str) -> None:
    count = 3000
    theirs, ours = timm_corners(policy, count), our_corners(policy, count)
    for corner in range(4):
        for axis in (0, 1):
            # two samples of one distribution stay within 0.06 in all but one of 10^4 cases
            assert largest_gap(theirs[:, corner, axis], ours[:, corner, axis]) < 0.06
        theirs_x, ours_x = theirs[:, corner, 0], ours[:, corner, 0]
        assert np.ptp(theirs_x) == pytest.approx(np.ptp(ours_x), rel=0.25)
    covariance = [np.cov(points.reshape(count, 8).T) for points in (theirs, ours)]
    np.testing.assert_allclose(covariance[0], covariance[1], atol=0.02)


def test_operations_are_drawn_as_often_and_as_strongly_as_timm_draws_them() -> None:
    text, count = "rand-m9-mstd0.5-inc1", 6000
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    theirs: dict[str, list[float]] = {}
    transform = rand_augment_transform(text, {"img_mean": GREY})
    for op in transform.ops:
        amounts = theirs.setdefault(op.name, [])
        op.aug_fn = lambda image, *args, kept=amounts, **_: kept.append((*args, 0.0)[0]) or image
    for _ in range(count):
        transform(None)
    ours: dict[str, list[float]] = {}
    policy, rng = parse_policy(text, GREY), np.random.default_rng(1)
    for _ in range(count):
        for operation in policy.draw(rng):
            assert isinstance(operation, Operation)
            ours.setdefault(operation.name, []).append((*operation.args, 0.0)[0])
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert len(ours[name]) == pytest.approx(len(theirs[name]), abs=5 * math.sqrt(400)), name
        assert largest_gap(np.array(ours[name]), np.array(theirs[name])) < 0.15, name


@pytest.mark.parametrize(
    "photometric",
    [
        [],
        [("SolarizeAdd", (40,)), ("BrightnessIncreasing", (1.3,))],
        [("ColorIncreasing", (0.4,)), ("ContrastIncreasing", (1.4,))],
        [("Invert", ()), ("Desaturate", (0.7,)), ("SharpnessIncreasing", (1.5,))],
    ],
)
@pytest.mark.parametrize("geometric", [[], [("Rotate", (17.0,)), ("TranslateXRel", (0.2,))]])
def test_pixels_are_close_to_one_operation_after_another(
    photometric: list[Any], geometric: list[Any]
) -> None:
    coarse = np.random.default_rng(3).integers(30, 220, (8, 10, 3)).astype(np.uint8)
    image = Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC)
    augmentation = Augmentation(scale=(0.5, 0.5), hflip=0.0, interpolation="bilinear")
    drawn = augmentation.draw(SOURCE, (112, 112), np.random.default_rng(4))
    operations = [Operation(*operation) for operation in (*photometric, *geometric)]
    stepwise = image
    for operation in operations:
        op = AugmentOp(operation.name, hparams={"img_mean": GREY, "interpolation": 2})
        stepwise = op.aug_fn(stepwise, *operation.args, **op.kwargs)
    box, view = drawn.view.source_box(), View.identity()
    edges = (box.x0 * 400, box.y0 * 300, box.x1 * 400, box.y1 * 300)
    expected = np.asarray(stepwise.resize((112, 112), Image.Resampling.BILINEAR, edges))
    for operation in operations:
        view = view.then(operation.view(SOURCE)) if operation.geometric else view
    ours = augmentation.apply(
        type(drawn)(
            view.then(drawn.view),
            "bilinear",
            tuple(operation for operation in operations if not operation.geometric),
        ),
        np.asarray(image),
        (112, 112),
    )
    valid = view.then(drawn.view).valid_pixels((112, 112))
    for shift in (-2, 2):
        valid &= np.roll(valid, shift, 0) & np.roll(valid, shift, 1)
    assert valid.mean() > 0.5
    assert np.abs(ours.astype(int) - expected)[valid].mean() < 2.5


def test_trivial_augment_draws_every_operation_evenly() -> None:
    policy, rng = parse_policy("trivial", GREY), np.random.default_rng(0)
    drawn = [policy.draw(rng) for _ in range(4200)]
    names = Counter(operations[0].name if operations else "Identity" for operations in drawn)  # type: ignore[union-attr]
    assert len(names) == 14
    assert min(names.values()) > 200
    turns = [op.args[0] for ops in drawn for op in ops if op.name == "Rotate"]  # type: ignore[union-attr]
    assert min(turns) < -120
    assert max(turns) > 120
    pixels = np.full((32, 32, 3), (10, 100, 200), np.uint8)
    for operations in drawn[:200]:
        for operation in operations:
            if not operation.geometric:
                assert operation.apply(pixels).shape == pixels.shape


def test_augmix_has_one_geometry_and_blends() -> None:
    policy, rng = parse_policy("augmix-m5-w4-d2", GREY), np.random.default_rng(0)
    pixels = np.asarray(Image.effect_noise((24, 24), 60).convert("RGB"))
    for _ in range(50):
        *geometric, mixture = policy.draw(rng)
        assert all(operation.geometric for operation in geometric)
        assert isinstance(mixture, AugMixture)
        assert len(mixture.chains) == 4
        assert sum(mixture.weights) == pytest.approx(1)
        assert not any(operation.geometric for chain in mixture.chains for operation in chain)
        assert mixture.apply(pixels).shape == pixels.shape
    plain = AugMixture(((), ()), (0.5, 0.5), 1.0)
    np.testing.assert_allclose(plain.apply(pixels), pixels, atol=1)


def test_three_augment_is_one_of_three() -> None:
    policy, rng = parse_policy("3a", GREY), np.random.default_rng(0)
    drawn = [policy.draw(rng) for _ in range(300)]
    assert {operations[0].name for operations in drawn} == {
        "Solarize",
        "Desaturate",
        "GaussianBlur",
    }  # type: ignore[union-attr]
    radii = [ops[0].args[0] for ops in drawn if ops[0].name == "GaussianBlur"]  # type: ignore[union-attr]
    assert 0.1 <= min(radii) < 0.3
    assert 1.7 < max(radii) <= 2.0


def test_posterizing_to_no_bits_at_all_is_clamped() -> None:
    pixels = np.full((4, 4, 3), (200, 100, 30), np.uint8)
    darkest = Operation("PosterizeIncreasing", (0,)).apply(pixels)
    assert set(darkest.ravel()) == {0, 128}


@pytest.mark.parametrize(
    ("policy", "jitters"),
    [("rand-m9-mstd0.5-inc1", False), ("augmix-m3", False), ("3a", True), ("rand-n2-t3a", True)],
)
def test_color_jitter_beside_a_policy_is_timms(policy: str, jitters: bool) -> None:
    """timm applies it where there is no policy, and beside 3-Augment."""
    reference = create_transform(
        (3, 32, 32), is_training=True, auto_augment=policy, color_jitter=0.4
    )
    assert any(isinstance(t, ColorJitter) for t in reference.transforms) == jitters
    for seed in range(5):
        plain, jittered = (
            Augmentation(policy=policy, color_jitter=strength).draw(
                (64, 64), (32, 32), np.random.default_rng(seed)
            )
            for strength in (0.0, 0.4)
        )
        added = jittered.operations[len(plain.operations) :]
        assert {op.name for op in added} == (
            {"Brightness", "Contrast", "Color"} if jitters else set()
        )


def test_colour_jitter_is_torchvisions() -> None:
    strengths = (0.4, 0.3, 0.2, 0.1)
    reference = ColorJitter(*strengths)
    torch.manual_seed(0)
    rng, augmentation = np.random.default_rng(0), Augmentation(color_jitter=strengths)
    theirs = [
        ColorJitter.get_params(
            reference.brightness, reference.contrast, reference.saturation, reference.hue
        )
        for _ in range(2000)
    ]
    ours = [augmentation.draw(SOURCE, (8, 8), rng).operations for _ in range(2000)]
    for place, name in enumerate(("Brightness", "Contrast", "Color", "Hue")):
        values = np.array([op.args[0] for ops in ours for op in ops if op.name == name])  # type: ignore[union-attr]
        assert largest_gap(values, np.array([row[1 + place] for row in theirs])) < 0.07
    assert len({tuple(op.name for op in ops) for ops in ours}) == 24  # type: ignore[union-attr]
    image = Image.new("RGB", (8, 8), (200, 40, 90))
    factors = {op.name: op for op in ours[0]}  # type: ignore[union-attr]
    from torchvision.transforms import functional as tvf

    for name, function in [
        ("Brightness", tvf.adjust_brightness),
        ("Contrast", tvf.adjust_contrast),
        ("Color", tvf.adjust_saturation),
        ("Hue", tvf.adjust_hue),
    ]:
        expected = function(image, factors[name].args[0])
        np.testing.assert_array_equal(factors[name].apply(np.asarray(image)), expected)


FACTORS, BITS, THRESHOLDS = (0.1, 0.55, 1.0, 1.37, 1.9), (1, 4, 8), (0, 77, 128.5, 256)
AMOUNTS: dict[str, tuple[float, ...]] = {
    "Invert": (),
    "AutoContrast": (),
    "Equalize": (),
    "Posterize": BITS,
    "PosterizeIncreasing": BITS,
    "PosterizeOriginal": BITS,
    "Solarize": THRESHOLDS,
    "SolarizeIncreasing": THRESHOLDS,
    "SolarizeAdd": (0, 40, 110),
    "Brightness": FACTORS,
    "BrightnessIncreasing": FACTORS,
    "Contrast": FACTORS,
    "ContrastIncreasing": FACTORS,
    "Color": FACTORS,
    "Sharpness": FACTORS,
    "Desaturate": (0.7,),
    "GaussianBlur": (1.3,),
}


def test_translations_keep_to_whole_pixels() -> None:
    for size in ((375, 500), (32, 32)):
        for name, axis in (("TranslateXRel", 0), ("TranslateYRel", 1)):
            view = Operation(name, (0.2345,)).view(size)
            moved = view.to_source[axis, 2] * size[1 - axis]
            assert moved == pytest.approx(round(moved), abs=1e-9)
            assert abs(moved - 0.2345 * size[1 - axis]) <= 0.5


@pytest.mark.parametrize("name", AMOUNTS)
def test_photometric_operations_are_timms_to_the_byte(name: str) -> None:
    rng = np.random.default_rng(0)
    every_level = rng.permutation(np.arange(768) // 3).astype(np.uint8).reshape(16, 16, 3)
    narrow = rng.integers(40, 170, (9, 31, 3)).astype(np.uint8)
    skewed = (rng.random((40, 30, 3)) ** 3 * 255).astype(np.uint8)
    flat = np.full((5, 4, 3), (3, 140, 255), np.uint8)
    for pixels in (every_level, narrow, skewed, flat):
        for args in [(amount,) for amount in AMOUNTS[name]] or [()]:
            ours = Operation(name, args).apply(pixels)
            theirs = NAME_TO_OP[name](Image.fromarray(pixels), *args)
            np.testing.assert_array_equal(ours, np.asarray(theirs))
            assert ours.flags.writeable


@pytest.mark.parametrize("name", AMOUNTS)
def test_each_channel_that_is_no_color_changes_as_a_gray_image(name: str) -> None:
    rng = np.random.default_rng(0)
    pixels = (rng.random((40, 30, 4)) ** 2 * 255).astype(np.uint8)
    deep = (pixels + rng.uniform(-0.45, 0.45, pixels.shape)).clip(0, 255).astype(np.float32)
    for args in [(amount,) for amount in AMOUNTS[name]] or [()]:
        operation = Operation(name, args)
        changed = operation.apply(pixels)
        assert (changed.shape, changed.dtype) == (pixels.shape, np.uint8)
        for channel in range(4):
            gray = operation.apply(pixels[..., [channel] * 3])
            np.testing.assert_array_equal(changed[..., channel], gray[..., 0])
        finer = operation.apply(deep)
        assert finer.dtype == np.float32
        np.testing.assert_array_equal(
            operation.apply(pixels.astype(np.float32)).astype(np.uint8), changed
        )
        if name not in ("Posterize", "Solarize"):
            assert np.abs(finer - changed).mean() < 2
    if name == "Color":
        np.testing.assert_array_equal(operation.apply(deep), deep)


def test_erasing_is_timms() -> None:
    random.seed(0)
    reference = RandomErasing(probability=0.6, mode="const", device="cpu")
    theirs = [1 - reference(torch.ones(1, 40, 40)).numpy()[0] for _ in range(1500)]
    augmentation, rng = Augmentation(erasing=0.6), np.random.default_rng(0)
    ours = []
    for _ in range(1500):
        erased = np.zeros((40, 40))
        for box in augmentation.draw(SOURCE, (40, 40), rng).erased:
            rows, cols = (
                slice(round(a * 40), round(b * 40)) for a, b in ((box.y0, box.y1), (box.x0, box.x1))
            )
            erased[rows, cols] = 1
        ours.append(erased)
    np.testing.assert_allclose(np.mean(ours, 0), np.mean(theirs, 0), atol=0.05)
    areas = [np.mean(sample, (1, 2)) for sample in (ours, theirs)]
    assert largest_gap(*areas) < 0.07


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
def test_erased_pixels_are_standard_noise_after_normalisation(mode: Any) -> None:
    augmentation = Augmentation(erasing=1.0, erasing_mode=mode, scale=(1, 1))
    image, size, rng = np.zeros((64, 64, 3), np.uint8), (64, 64), np.random.default_rng(0)
    values = []
    for _ in range(60):
        drawn = augmentation.draw(size, size, rng)
        pixels = augmentation.apply(drawn, image, size)
        (box,) = drawn.erased
        rows, cols = (
            slice(round(a * 64), round(b * 64)) for a, b in ((box.y0, box.y1), (box.x0, box.x1))
        )
        region = pixels[rows, cols].reshape(-1, 3) / 255
        values.append((region - augmentation.mean) / augmentation.std)
        outside = pixels.copy()
        outside[rows, cols] = 0
        assert not outside.any()
    if mode == "const":
        assert np.abs(np.concatenate(values)).max() < 0.02
    else:
        spread = np.std([v.mean() if mode == "rand" else v.std() for v in values])
        assert np.concatenate(values).std() == pytest.approx(1, abs=0.12)  # bytes end near 2 sigma
        assert (spread > 0.3) == (mode == "rand")


def test_interpolation_flips_and_probabilities() -> None:
    rng = np.random.default_rng(0)
    drawn = [Augmentation(vflip=0.2).draw(SOURCE, (8, 8), rng) for _ in range(2000)]
    assert np.mean([d.interpolation == "bicubic" for d in drawn]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([d.view.to_source[0, 0] < 0 for d in drawn]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([d.view.to_source[1, 1] < 0 for d in drawn]) == pytest.approx(0.2, abs=0.04)
    fixed = Augmentation(interpolation="bicubic", hflip=0).draw(SOURCE, (8, 8), rng)
    assert fixed.interpolation == "bicubic"
    long = Augmentation(hflip=0, scale=(1, 1)).draw((10, 200), (8, 8), rng).view.source_box()
    assert (long.width * 200, long.height * 10) == (13, 10)  # the widest centre crop allowed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("random-m9", "no augmentation policy 'random'.*did you mean 'rand'"),
        ("rand-m9-x3", "'x3' is none of inc, m, mmax, mstd"),
        ("rand-m9-mstd", "'mstd' is none of"),
        ("rand-m9-tweight", "'tweight' is none of"),
        ("augmix-inc1", "'inc1' is none of"),
        ("trivial-m9", "'m9' is none of any"),
    ],
)
def test_misspelt_policies_are_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Augmentation(policy=text)


@pytest.mark.parametrize(
    "setting",
    [{"scale": (0.5, 0.1)}, {"hflip": 1.5}, {"color_jitter": (0.1, 0.2)}, {"ratio": (0, 1)}],
)
def test_impossible_settings_are_named(setting: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(setting))):
        Augmentation(**setting)
