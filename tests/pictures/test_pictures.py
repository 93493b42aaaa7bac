"""Pictures show things where they are, whatever the shape of the image."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from tokenlabel.cli.show import show
from tokenlabel.data.decode import decode_image
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.errors import InputError
from tokenlabel.evaluation.classifier import Classifier
from tokenlabel.evaluation.load import load_classifier
from tokenlabel.export.timm_folder import export_timm
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap, LabelStoreWriter
from tokenlabel.models import DenseModel
from tokenlabel.output import DenseOutput
from tokenlabel.pictures import panels
from tokenlabel.pictures.colors import class_colors
from tokenlabel.pictures.explain import class_probability, explain, token_map
from tokenlabel.pictures.overlay import draw_heat, draw_label_map
from tokenlabel.pictures.panels import Row
from tokenlabel.pictures.segmentation import draw_class_table

COLUMNS = 6


def certain(classes: list[list[int]], extent: Box, num_classes: int = COLUMNS) -> LabelMap:
    """A map that is sure of one class in each cell."""
    ids = torch.tensor(classes)[None]
    return LabelMap(torch.zeros(ids.shape), ids, torch.zeros(ids.shape[1:]), extent, num_classes)


def drawn(size: tuple[int, int], draw) -> np.ndarray:
    """What is drawn for a black image of `size`, one screen pixel for one of its own: [H, W, 3]."""
    height, width = size
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    draw(figure.add_axes((0, 0, 1, 1)), np.zeros((height, width, 3), np.uint8))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3] / 255


@pytest.mark.parametrize("size", [(200, 500), (300, 180), (240, 240)])
def test_each_cell_lies_on_its_part_of_the_image(size: tuple[int, int]) -> None:
    extent = Box(0.2, 0.1, 0.8, 0.7)
    label_map = certain([[0, 1, 2], [3, 4, 5]], extent)
    picture = drawn(size, lambda axes, image: draw_label_map(axes, image, label_map, 1.0))
    colors = class_colors(COLUMNS)
    for row in range(2):
        for column in range(3):
            x = extent.x0 + (column + 0.5) / 3 * extent.width
            y = extent.y0 + (row + 0.5) / 2 * extent.height
            pixel = picture[int(y * size[0]), int(x * size[1])]
            assert pixel == pytest.approx(colors[row * 3 + column], abs=0.02)
    for x, y in ((0.1, 0.4), (0.9, 0.4), (0.5, 0.05), (0.5, 0.9)):
        assert picture[int(y * size[0]), int(x * size[1])].max() == 0
    # the border of the map, to the pixel
    row = picture[int(0.4 * size[0])].max(-1) > 0
    assert row.nonzero()[0][[0, -1]] == pytest.approx([0.2 * size[1], 0.8 * size[1] - 1], abs=1)


def test_heat_is_where_its_value_is() -> None:
    values = np.array([[0.0, 1.0, 0.0, 0.0]])
    picture = drawn((100, 400), lambda axes, image: draw_heat(axes, image, values, Box()))
    brightness = picture[50].sum(-1)
    assert brightness[110:190].min() > 3 * brightness[[50, 250, 350]].max()


def test_a_class_has_probability_zero_where_it_is_not_among_the_best() -> None:
    label_map = certain([[0, 1], [1, 0]], Box())
    assert class_probability(label_map, 1).tolist() == [[0.0, 1.0], [1.0, 0.0]]


class _ColumnReader(nn.Module):
    """A model of 4 x 4 tokens whose classes are ranges of the red channel."""

    num_classes = COLUMNS

    def forward(self, images: torch.Tensor) -> DenseOutput:
        red = nn.functional.adaptive_avg_pool2d(images[:, :1], (4, 4))[:, 0]
        middles = (torch.arange(COLUMNS) + 0.5) / COLUMNS
        tokens = -((red[..., None] - middles) ** 2)
        return DenseOutput(tokens.mean((1, 2)), tokens)


@pytest.mark.parametrize("size", [(120, 360), (360, 120)])
def test_token_predictions_lie_where_the_model_looked(size: tuple[int, int]) -> None:
    """On an image whose red is x, the class of each token says which x it saw."""
    height, width = size
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.round((np.arange(width) + 0.5) / width * 255)
    settings = Preprocessing((64, 64), 0.9, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    names = tuple(map(str, range(COLUMNS)))
    label_map = token_map(Classifier(_ColumnReader(), settings, names, True), image)
    x = label_map.extent.x0 + (torch.arange(4) + 0.5) / 4 * label_map.extent.width
    expected = (x * COLUMNS).long().expand(4, 4)
    assert (label_map.classes[0] == expected).all()
    seen = label_map.extent.width * width, label_map.extent.height * height
    assert seen == pytest.approx((108, 108), abs=3)


def test_show_writes_a_picture_and_a_page_from_a_store(tmp_path: Path) -> None:
    image = tmp_path / "photos" / "cat" / "1.png"
    image.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((40, 90, 3), np.uint8)).save(image)
    writer = LabelStoreWriter(tmp_path / "labels", num_classes=3)
    writer.add("cat/1.png", certain([[0, 1], [2, 2]], Box(), 3))
    writer.close()
    for name in ("out.png", "out.html"):
        show(images=(image,), labels=tmp_path / "labels", output=tmp_path / name)
    assert Image.open(tmp_path / "out.png").width > 600
    page = (tmp_path / "out.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "http" not in page
    assert not list(tmp_path.glob(".*"))


def test_show_turns_images_as_those_of_the_labels_and_knows_their_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    for part in ("train", "val"):
        image = tmp_path / "photos" / part / "cat" / "1.jpg"
        image.parent.mkdir(parents=True)
        Image.new("RGB", (90, 40)).save(image, exif=exif)
    about = {"decode": {"orientation": "apply"}, "found": {"part": "train"}}
    with LabelStoreWriter(tmp_path / "labels", num_classes=3, dataset=about) as writer:
        writer.add("cat/1.jpg", certain([[0, 1], [2, 2]], Box(), 3))
    rows: list[Row] = []
    monkeypatch.setattr(panels, "write_pictures", lambda _file, given: rows.extend(given))
    show(images=(tmp_path / "photos/train/cat/1.jpg",), labels=tmp_path / "labels")
    assert rows[0].image.shape == (90, 40, 3)
    with pytest.raises(InputError, match="it labels the part 'train', which has an image of the"):
        show(images=(tmp_path / "photos/val/cat/1.jpg",), labels=tmp_path / "labels")


def test_show_sets_annotator_and_student_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A taught annotator's folder and a student of the same classes, with names and relevance."""
    names = ("ant", "bee", "cow")
    settings = Preprocessing((160, 160), 0.9, "bicubic", (0.5,) * 3, (0.5,) * 3)
    for place, model in (("annotator", "test_resnet"), ("student", "test_vit")):
        dense = DenseModel(model, 3).eval()
        made = Classifier(dense, settings, names, place == "student", {"model": model})
        export_timm(made, tmp_path / place)
    image = tmp_path / "1.png"
    Image.fromarray(np.zeros((40, 90, 3), np.uint8)).save(image)
    seen = decode_image(image.read_bytes(), "1.png")
    student = load_classifier(tmp_path / "student")
    with torch.inference_mode():
        scores = student.scores(student.preprocessing.pixels(seen)[None])
    answer = names[int(scores["fused"].argmax())]  # tokens were taught: the published rule
    rows: list[Row] = []
    monkeypatch.setattr(panels, "write_pictures", lambda _file, given: rows.extend(given))
    show(
        images=(image,),
        annotator=str(tmp_path / "annotator"),
        checkpoint=tmp_path / "student",
        classes=("bee",),
        relevance=True,
    )
    assert [panel.title for panel in rows[0].panels] == [
        "annotator",
        "student's tokens",
        "bee: annotator",
        "bee: student's tokens",
        "attention rollout",
        *(f"relevance for {name}" for name in dict.fromkeys([answer, "bee"])),
    ]
    assert rows[0].class_names == names
    assert rows[0].answer is not None
    assert re.fullmatch(rf"answer: {answer}, \d+ %", rows[0].answer)


def test_relevance_explains_the_answer_and_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --classes: of the student's own answer, not of what fills most of the label map."""
    dense = DenseModel("test_vit", 3).eval()
    bias = dense.backbone.get_classifier().bias
    with torch.no_grad():
        bias.copy_(torch.tensor([0.0, 0.0, 50.0]))
    settings = Preprocessing((160, 160), 0.9, "bicubic", (0.5,) * 3, (0.5,) * 3)
    student = Classifier(dense, settings, ("ant", "bee", "cow"), False, {"model": "test_vit"})
    maps = {"label map": certain([[0, 0], [0, 1]], Box(), 3)}
    row = explain("x", np.zeros((40, 90, 3), np.uint8), maps, student, relevance=True)
    assert row.answer == "answer: cow, 100 %"
    titles = [panel.title for panel in row.panels]
    assert [t for t in titles if t.startswith("relevance")] == ["relevance for cow"]
    assert "ant: label map" in titles


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to show"),
        ({"labels": "labels", "images": ("nowhere.png",)}, "no image at"),
        ({"labels": "labels", "images": ("cat/2.png",)}, "has no label for"),
        ({"labels": "labels", "classes": ("zebra",)}, "no such class: 'zebra'"),
        ({"labels": "labels", "output": "out.gif"}, "as .png or .html"),
        ({"labels": "labels", "relevance": True}, "--relevance explains a student"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cat").mkdir()
    for name in ("1.png", "2.png"):
        Image.fromarray(np.zeros((4, 9, 3), np.uint8)).save(f"cat/{name}")
    writer = LabelStoreWriter("labels", num_classes=3)
    writer.add("cat/1.png", certain([[0, 1], [2, 2]], Box(), 3))
    writer.close()
    arguments = {"images": ("cat/1.png",)} | options
    paths = {"images": tuple(map(Path, arguments["images"]))}
    paths |= {k: Path(v) for k, v in arguments.items() if k in ("labels", "output")}
    with pytest.raises(InputError, match=message):
        show(**(arguments | paths))


def test_a_class_that_never_comes_up_has_no_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 would say that it was missed."""
    labels, bars, barh = [], [], Axes.barh

    def spied(axes: Axes, places: range, values: list[float], **options: object) -> object:
        bars.append(values)
        return barh(axes, places, values, **options)

    monkeypatch.setattr(Axes, "set_yticks", lambda _axes, _places, names, **_: labels.extend(names))
    monkeypatch.setattr(Axes, "barh", spied)
    nan = float("nan")
    draw_class_table(["a", "b", "c"], [0.5, nan, 0.0], [0.6, nan, 0.0], "", tmp_path / "t.png")
    assert labels == ["b (absent)", "c", "a"]
    assert [[value == value for value in values] for values in bars] == [[False, True, True]] * 2
