"""Network annotators: cells through the model's own head, views, windows and class maps."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch import nn

from tokenlabel.annotators.cells import CellScores
from tokenlabel.annotators.class_map import known_classes, match_classes
from tokenlabel.annotators.classifier import ClassifierSpec, classifier_inputs
from tokenlabel.annotators.image_model import (
    ImageAnnotator,
    Views,
    largest_batch,
    weights_hash,
)
from tokenlabel.annotators.spec import Network
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.errors import InputError
from tokenlabel.geometry import Box


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=7).eval()


@pytest.mark.parametrize("name", ["resnet10t", "regnetx_002", "swin_tiny_patch4_window7_224"])
def test_cells_of_a_linear_head_average_to_the_classifiers_output(name) -> None:
    model = small(name)
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        cells = CellScores(model)(images)
        torch.testing.assert_close(cells.mean((1, 2)), model(images), atol=1e-4, rtol=1e-4)
    assert cells.shape == (2, 7, 7, 7)


def test_each_cell_is_the_classifiers_output_on_that_cell_alone() -> None:
    model = small("resnet10t")
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        cells = CellScores(model)(images)
        features = model.forward_features(images)
        assert cells.shape == (1, 2, 3, 7)
        for row in range(2):
            for col in range(3):
                alone = features[:, :, row : row + 1, col : col + 1]
                torch.testing.assert_close(cells[:, row, col], model.forward_head(alone))


@pytest.mark.parametrize("name", ["convnext_atto", "deit_tiny_distilled_patch16_224"])
def test_other_families_have_cells_too(name) -> None:
    with torch.inference_mode():
        cells = CellScores(small(name))(torch.randn(1, 3, 224, 224))
    assert cells.shape[0] == 1
    assert cells.shape[3] == 7
    assert cells.shape[1] == cells.shape[2] > 1
    assert cells.std((1, 2)).min() > 0  # cells differ


def test_heads_that_never_saw_a_patch_are_told_apart() -> None:
    assert not CellScores(small("vit_tiny_patch16_224")).head_reads_patches
    assert CellScores(small("resnet10t")).head_reads_patches


def test_models_without_a_map_are_refused() -> None:
    with pytest.raises(InputError, match="no single map"), torch.inference_mode():
        CellScores(small("crossvit_tiny_240"))(torch.randn(1, 3, 240, 240))


class Bright(nn.Module):
    """Scores 8-pixel cells by their red and green: the place of every score is known."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.avg_pool2d(images[:, :2], 8)
        return pooled.permute(0, 2, 3, 1) * 5


def bright(size: tuple[int, int] = (32, 48), **kwargs) -> ImageAnnotator:
    preprocessing = Preprocessing(size, 1.0, "bicubic", (0, 0, 0), (1, 1, 1), "squash", multiple=8)
    return ImageAnnotator(Bright(), 2, preprocessing, top_k=2, **kwargs)


def probabilities(annotator: ImageAnnotator, pixels: np.ndarray) -> torch.Tensor:
    """[2, h, w], class 0 first."""
    (label,) = annotator.annotate([annotator.prepare("", pixels)])
    return label.probabilities().gather(0, label.classes.argsort(0))


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize("views", [Views(flip=True), Views(window=16), Views(window=24, flip=True)])
def test_views_put_every_score_back_in_its_place(pixels, views) -> None:
    # the scores depend on their own cell alone, so mirrored or windowed views must agree with one
    torch.testing.assert_close(
        probabilities(bright(views=views), pixels), probabilities(bright(), pixels)
    )


@pytest.mark.parametrize("window", [96, 100, 128, 224, 400])
@pytest.mark.parametrize("size", [(240, 304), (272, 272), (64, 240)])
def test_windows_of_any_size_leave_no_cell_out(size, window) -> None:
    class Coarse(nn.Module):  # as convolutions of stride 32 do, it has a cell for every part of 32
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            pooled = nn.functional.avg_pool2d(images[:, :2], 32, ceil_mode=True)
            return pooled.permute(0, 2, 3, 1) * 5

    ramp = np.zeros((*size, 3), np.uint8)
    ramp[..., 0] = np.linspace(0, 255, size[1]).astype(np.uint8)
    inputs = Preprocessing(size, 1.0, "bicubic", (0, 0, 0), (1, 1, 1), "squash", multiple=32)
    annotator = ImageAnnotator(Coarse(), 2, inputs, top_k=2, views=Views(window=window))
    logits = annotator.logits(annotator.prepare("", ramp)[0][None])
    assert logits.isfinite().all()
    middles = (torch.arange(logits.shape[2]) + 0.5) / logits.shape[2] * 5
    assert (logits[0, :, :, 0] - middles).abs().max() < 5 * 32 / size[1]


def test_scales_are_averaged_on_the_first_ones_grid(pixels) -> None:
    smooth = np.broadcast_to(np.linspace(0, 255, 48, dtype=np.uint8)[None, :, None], (32, 48, 3))
    smooth = np.concatenate([smooth[..., :1], 255 - smooth[..., :1], smooth[..., :1]], -1)
    both = probabilities(bright(views=Views(scales=(1.0, 2.0))), np.ascontiguousarray(smooth))
    assert both.shape == (2, 4, 6)
    torch.testing.assert_close(
        both, probabilities(bright(), np.ascontiguousarray(smooth)), atol=0.05, rtol=0
    )


def test_raw_logits_of_one_view_are_kept(pixels) -> None:
    annotator = bright()
    image, _ = annotator.prepare("", pixels)
    (label,) = annotator.annotate([(image, Box())])
    expected = Bright()(image[None].float() / 255)[0].permute(2, 0, 1)
    torch.testing.assert_close(label.scores, expected.topk(2, 0).values)


def test_images_of_different_shapes_share_a_batch() -> None:
    rng = np.random.default_rng(0)
    annotator = bright((32, 32))
    annotator.preprocessing = annotator.preprocessing.fitted("keep")
    shapes = [(40, 80, 3), (64, 64, 3), (80, 40, 3), (41, 82, 3)]
    batch = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    items = [annotator.prepare("", image) for image in batch]
    together = annotator.annotate(items)
    assert [label.grid for label in together] == [(3, 6), (4, 4), (6, 3), (3, 6)]
    for item, label in zip(items, together, strict=True):
        torch.testing.assert_close(annotator.annotate([item])[0].scores, label.scores)


def test_a_crop_says_what_it_shows() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, 50:150] = 255  # the centre square is white
    annotator = bright((32, 32))
    annotator.preprocessing = annotator.preprocessing.fitted("crop")
    image, extent = annotator.prepare("", pixels)
    assert image.shape == (3, 32, 32)
    assert image.min() == 255
    assert extent == Box(0.25, 0, 0.75, 1)
    assert bright((32, 32)).prepare("", pixels)[1] == Box()


def test_the_largest_batch_is_found_by_trying() -> None:
    def attempt(size: int) -> None:
        if size > 100:
            raise torch.OutOfMemoryError

    assert largest_batch(attempt) == 64
    assert largest_batch(lambda size: None, most=256) == 256


def test_classes_are_matched_by_name() -> None:
    assert match_classes(["a", "b"], 2, ["a", "b"]) is None
    assert match_classes(None, 2, ["x", "y"]) is None
    subset = match_classes(["a", "b", "c"], 3, ["c", "a"])
    logits = torch.tensor([1.0, 9.0, 2.0])
    assert subset(logits).tolist() == [2.0, 1.0]
    with pytest.raises(InputError, match=r"'bee' for one \(did you mean 'bees'"):
        match_classes(["a", "bees"], 2, ["a", "bee"])
    with pytest.raises(InputError, match="3 classes without names, the data set has 2"):
        match_classes(None, 3, ["a", "b"])


def test_a_class_table_sums_what_it_merges(tmp_path) -> None:
    table = tmp_path / "map.csv"
    table.write_text("tabby,cat\nsiamese,cat\n2,dog\n")
    mapping = match_classes(["tabby", "siamese", "poodle", "car"], 4, ["dog", "cat", "owl"], table)
    logits = torch.randn(5, 4)
    mapped = mapping(logits).softmax(-1)
    known = logits[:, :3].softmax(-1)
    torch.testing.assert_close(mapped[:, 0], known[:, 2])
    torch.testing.assert_close(mapped[:, 1], known[:, :2].sum(-1))
    assert mapped[:, 2].max() < 1e-30  # nothing stands for an owl
    table.write_text("taby,cat\n")
    with pytest.raises(InputError, match=r"line 1: the annotator has no class 'taby' \(did you"):
        match_classes(["tabby"], 1, ["cat"], table)


def test_names_that_do_not_exist_are_named() -> None:
    with pytest.raises(InputError, match=r"no model 'resnet10x' \(did you mean"):
        ClassifierSpec(model="resnet10x").build(())
    with pytest.raises(InputError, match="nowhere:model is not a function"):
        ClassifierSpec(model="nowhere:model").build(())


def test_any_function_may_make_the_classifier(pixels) -> None:
    annotator = ClassifierSpec(
        model="timm.models.resnet:resnet10t",
        model_kwargs={"num_classes": 5},
        network=Network(image_size=64),
    ).build("abcde")
    (label,) = annotator.annotate([annotator.prepare("", pixels)])
    assert label.grid == (2, 2)
    assert label.num_classes == 5
    assert annotator.description["preprocessing"]["image_size"] == (64, 64)


def test_models_of_one_size_are_asked_for_one_size_only(pixels) -> None:
    vit = {"model": "vit_tiny_patch16_224", "pretrained": False, "keep_classes": True}
    with pytest.raises(InputError, match="images of one size"):
        ClassifierSpec(**vit, network=Network(image_size=32, fit="keep")).build(())
    sliding = ClassifierSpec(**vit, network=Network(image_size=96, window=32)).build(())
    (label,) = sliding.annotate([sliding.prepare("", pixels)])
    assert label.grid == (6, 6)
    assert any("never saw a patch token" in note for note in sliding.notes)


def test_same_weights_same_hash() -> None:
    assert weights_hash(small("resnet10t")) == weights_hash(small("resnet10t"))
    other = timm.create_model("resnet10t", num_classes=7)
    assert weights_hash(other) != weights_hash(small("resnet10t"))


def test_the_published_annotator_runs_at_its_test_size() -> None:
    # its training size, 448, gives maps of 14 x 14; the paper's labels are 18 x 18
    with torch.device("meta"):
        network = timm.create_model("dm_nfnet_f6").eval()
        inputs = classifier_inputs(network, Network())
        assert inputs.image_size == (576, 576)
        cells = CellScores(network)(torch.empty(1, 3, *inputs.image_size))
    assert cells.shape == (1, 18, 18, 1000)
    assert classifier_inputs(network, Network(size_factor=1.5)).image_size == (864, 864)
    assert classifier_inputs(network, Network(image_size=448)).image_size == (448, 448)
    with pytest.raises(InputError, match="not both"):
        classifier_inputs(network, Network(image_size=448, size_factor=2.0))


SYNSETS = ["n01443537", "n01440764", "n02012849", "n03126707"]
LEMMAS = ["goldfish, Carassius auratus", "tench, Tinca tinca", "crane", "crane"]


@pytest.mark.parametrize(
    "names", [["tench", "goldfish"], ["Tinca_tinca", "GOLDFISH"], ["n01440764", "n01443537"]]
)
def test_folders_may_be_called_by_lemmas(names) -> None:
    mapping = match_classes(SYNSETS, 4, names, None, LEMMAS)
    assert mapping(torch.arange(4.0)).tolist() == [1, 0]


def test_imagenets_names_are_known_by_timm() -> None:
    known, described = known_classes(timm.create_model("resnet10t"))
    mapping = match_classes(
        known, 1000, ["goldfish", "tench", "great white-shark"], None, described
    )
    assert mapping(torch.arange(1000.0)).tolist() == [1, 0, 2]


def test_numbered_classes_match_by_number_where_all_are_there() -> None:
    assert match_classes(SYNSETS, 4, list("0123"))(torch.arange(4.0)).tolist() == [0, 1, 2, 3]
    assert match_classes(SYNSETS, 4, ["0003", "2", "1", "0"])(torch.arange(4.0))[0] == 3
    with pytest.raises(InputError, match="does not know 2 of the data set's 2 classes, '0'"):
        match_classes(SYNSETS, 4, ["0", "1"])  # ten digits are no fishes


def test_ambiguous_names_are_listed_with_the_ways_out() -> None:
    fault = r"ambiguous names: 'crane' \(n02012849 or n03126707\).*--class-map.*--keep-classes"
    with pytest.raises(InputError, match=fault):
        match_classes(SYNSETS, 4, ["tench", "crane"], None, LEMMAS)
    with pytest.raises(InputError, match=r"'tench' and 'Tinca tinca' \(both n01440764\)"):
        match_classes(SYNSETS, 4, ["tench", "Tinca tinca"], None, LEMMAS)
