"""What is done with a student of words once it is trained, and what no interruption changes."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from PIL import Image
from words_world import CLASSES, SHORT, SMALL, WORDS, make_world, run

from tokenlabel.api.annotate import annotate
from tokenlabel.api.train import train
from tokenlabel.cli.export import export
from tokenlabel.cli.show import show
from tokenlabel.cli.view import view
from tokenlabel.data.decode import decode_image
from tokenlabel.data.inputs import Preprocessing
from tokenlabel.errors import InputError
from tokenlabel.evaluation.classifier import Classifier
from tokenlabel.evaluation.load import load_classifier
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap, LabelStore, LabelStoreWriter
from tokenlabel.labels.vocabulary import Vocabulary
from tokenlabel.models import DenseModel
from tokenlabel.pictures import panels
from tokenlabel.pictures.explain import explain
from tokenlabel.pictures.panels import Row

SIZE = 32


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images and stores; `both` is a student of classes and words, `plain` one of words alone."""
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    run(folder, folder / "both", labels=[str(folder / name) for name in ("classes", "words")])
    run(folder, folder / "beside")
    flat = {"data": str(folder / "flat"), "labels": str(folder / "flat-words")}
    run(folder, folder / "plain", **flat)
    return folder


@pytest.mark.parametrize("name", ["both", "beside"])
def test_programs_give_what_the_student_gives(world: Path, tmp_path: Path, name: str) -> None:
    file = tmp_path / "student.onnx"
    export(checkpoint=world / name, output=file)
    session = onnxruntime.InferenceSession(str(file))
    images = torch.randn(2, 3, SIZE, SIZE)
    student = load_classifier(world / name)
    found = dict(
        zip(
            [output.name for output in session.get_outputs()],
            session.run(None, {"images": images.numpy()}),
            strict=True,
        )
    )
    # tokens that name words are no prediction
    assert set(found) == ({"logits", "tokens", "fused"} if name == "both" else {"logits"})
    expected = student.model(images)
    torch.testing.assert_close(torch.from_numpy(found["logits"]), expected.logits)
    if name == "both":
        assert found["tokens"].shape[-1] == len(CLASSES)
        torch.testing.assert_close(torch.from_numpy(found["tokens"]), expected.tokens)


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_programs_of_a_student_without_classes_give_features_and_words(
    world: Path, tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"student.{suffix}"
    export(checkpoint=world / "plain", output=file, dynamic_size=suffix == "onnx")
    student = load_classifier(world / "plain")
    images = torch.randn(3, 3, SIZE, SIZE)
    _, patches = student.model.forward_tokens(images)
    expected = patches.mean((1, 2)), student.model.token_head(patches)
    assert [part.shape for part in expected] == [(3, 24), (3, 4, 4, WORDS)]
    if suffix == "onnx":
        session = onnxruntime.InferenceSession(str(file))
        assert [output.name for output in session.get_outputs()] == ["features", "tokens"]
        found = session.run(["features", "tokens"], {"images": images.numpy()})
        wide = {"images": torch.randn(1, 3, SIZE, 2 * SIZE).numpy()}
        assert session.run(["tokens"], wide)[0].shape == (1, 4, 8, WORDS)
    else:
        found = torch.export.load(file).module()(images)
    for mine, theirs in zip(expected, found, strict=True):
        torch.testing.assert_close(torch.as_tensor(theirs), mine)


@pytest.mark.parametrize("name", ["both", "beside"])
def test_a_timm_folder_answers_as_the_student_does(world: Path, tmp_path: Path, name: str) -> None:
    export(checkpoint=world / name, output=tmp_path / "folder")
    images = torch.randn(2, 3, SIZE, SIZE)
    student, again = load_classifier(world / name), load_classifier(tmp_path / "folder")
    plain = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    torch.testing.assert_close(plain(images), student.model(images).logits)
    torch.testing.assert_close(again.model(images).logits, student.model(images).logits)
    assert (again.rules, again.class_names) == (student.rules, CLASSES)
    if name == "both":
        torch.testing.assert_close(again.model(images).tokens, student.model(images).tokens)


def test_a_student_of_words_alone_is_exported_as_a_backbone(world: Path, tmp_path: Path) -> None:
    export(checkpoint=world / "plain", output=tmp_path / "folder")
    assert "classifier" not in (tmp_path / "folder" / "README.md").read_text()
    images = torch.randn(2, 3, SIZE, SIZE)
    backbone = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    expected = load_classifier(world / "plain").model.backbone
    torch.testing.assert_close(backbone(images), expected(images))
    with pytest.raises(InputError, match="trained without classes"):
        load_classifier(tmp_path / "folder")
    spec = {"kind": "words", "model": str(tmp_path / "folder"), "words": 4, "perplexity": 2.0}
    annotate(data=str(world / "flat"), output=tmp_path / "words", annotator=spec)
    after = run(
        world, tmp_path / "after", labels=(), supervision="labels", weights=str(tmp_path / "folder")
    )
    assert "val/top1" in after["measures"]


def test_pictures_are_of_the_classes(world: Path, tmp_path: Path) -> None:
    file = world / "images" / "val" / "cat" / "0.png"
    image = decode_image(file.read_bytes(), file.name)
    for name, tokens in (("both", True), ("beside", False)):
        row = explain(file.name, image, {}, load_classifier(world / name), relevance=True)
        titles = [panel.title for panel in row.panels]
        assert ("student's tokens" in titles) == tokens
        assert any(title.startswith("relevance for ") for title in titles)
        assert "attention rollout" in titles
        assert row.answer.split(", ")[0].removeprefix("answer: ") in CLASSES
    with pytest.raises(InputError, match="trained without classes: leave --relevance out"):
        show((file,), checkpoint=world / "plain", relevance=True, output=tmp_path / "show.png")
    assert not (tmp_path / "show.png").exists()
    with pytest.raises(InputError, match="trained without classes"):
        view(str(world / "words"), data=str(world / "images"), checkpoint=world / "plain")
    both = {"labels": world / "words", "checkpoint": world / "beside"}
    trained = world / "images" / "train" / "cat" / "0.png"
    show((trained,), **both, relevance=True, output=tmp_path / "show.png")
    assert Image.open(tmp_path / "show.png").width > 100


def test_words_are_drawn_where_there_are_no_classes(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Row] = []
    written = panels.write_pictures
    monkeypatch.setattr(panels, "write_pictures", lambda _, drawn: rows.extend(drawn))
    file, plain = world / "flat" / "cat0.png", {"checkpoint": world / "plain"}
    show((file,), **plain)
    show((file,), **plain, labels=world / "flat-words", classes=("word 7",))
    for row, titles in zip(
        rows, (["student's tokens"], ["label map", "student's tokens"]), strict=True
    ):
        assert [panel.title for panel in row.panels][: len(titles)] == titles
        assert row.class_names == tuple(f"word {number}" for number in range(WORDS))
        assert row.answer is None
    assert [panel.title for panel in rows[1].panels[2:]] == [
        "word 7: label map", "word 7: student's tokens",
    ]  # fmt: skip
    store, student = LabelStore(world / "flat-words"), load_classifier(world / "plain")
    assert torch.equal(rows[1].label_maps[0].classes, store["cat0.png"].classes)
    pixels = student.preprocessing.pixels(decode_image(file.read_bytes(), file.name))
    tokens = student.output(pixels[None]).tokens[0]
    for row in rows:
        assert torch.equal(row.label_maps[-1].classes[0], tokens.argmax(-1))
    written(tmp_path / "show.png", rows)
    assert Image.open(tmp_path / "show.png").width > 100


def test_other_labels_are_not_drawn_beside_a_students_words(world: Path, tmp_path: Path) -> None:
    """As many of them would have the same colors."""
    other = Vocabulary(torch.eye(WORDS), torch.zeros(WORDS), 0.2)
    with LabelStoreWriter(tmp_path / "other", num_classes=WORDS, vocabulary=other) as writer:
        writer.add("cat0.png", LabelMap.from_logits(torch.randn(WORDS, 5, 5), 3, Box()))
    arguments = {"checkpoint": world / "plain", "output": tmp_path / "show.png"}
    file = world / "flat" / "cat0.png"
    with pytest.raises(
        InputError, match="does not hold the visual words that the student's tokens"
    ):
        show((file,), labels=tmp_path / "other", **arguments)
    with pytest.raises(InputError, match="leave --annotator out"):
        show((file,), annotator="test_resnet", **arguments)
    assert not (tmp_path / "show.png").exists()


def test_words_without_a_record_have_numbers() -> None:
    """A thousand of them are not ImageNet's classes."""
    model = DenseModel("test_vit", 0, token_classes=1000, img_size=SIZE).eval()
    settings = Preprocessing((SIZE, SIZE), 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3)
    student = Classifier(model, settings, (), has_tokens=False, facts={"model": "test_vit"})
    row = explain("noise", np.zeros((SIZE, SIZE, 3), np.uint8), {}, student)
    assert row.class_names == tuple(map(str, range(1000)))


def test_a_run_knows_the_words_that_it_taught(world: Path) -> None:
    known = {name: load_classifier(world / name).vocabulary for name in ("plain", "beside", "both")}
    words = LabelStore(world / "words").manifest.vocabulary_sha256
    assert known == {"plain": words, "beside": words, "both": ""}  # classes first


def test_a_linear_probe_trains_one_layer(world: Path, tmp_path: Path) -> None:
    before = load_classifier(world / "plain").model.backbone.state_dict()
    probe = tmp_path / "probe"
    settings = (*SMALL[1:], f"{SMALL[0][:-1]}, heads: tokens}}", "ema.decay=null")
    measures = train(
        data=str(world / "images"), output=probe, supervision="labels", freeze="backbone",
        weights=str(world / "plain"), **SHORT, settings=settings,
    ).results["measures"]  # fmt: skip
    assert "val/top1" in measures
    student = load_classifier(probe)
    head, kept = student.model.token_head, student.model.backbone.state_dict()
    assert isinstance(head, torch.nn.Linear)
    assert head.out_features == len(CLASSES)
    assert head.bias.abs().max() > 0  # it learned
    names = [name for name in before if not name.startswith("head.")]
    assert [name for name in names if not torch.equal(kept[name], before[name])] == []


def test_tars_without_classes_teach_words(world: Path, tmp_path: Path) -> None:
    (tmp_path / "tars").mkdir()
    files = sorted((world / "flat").iterdir())
    for number in range(2):
        with tarfile.open(tmp_path / "tars" / f"{number:06d}.tar", "w") as tar:
            for file in files[number::2]:
                tar.add(file, file.name)
    spec = {"kind": "words", "model": str(world / "plain"), "words": 4, "perplexity": 2.0}
    data = str(tmp_path / "tars")
    annotate(data=data, output=tmp_path / "words", annotator=spec)
    assert len(LabelStore(tmp_path / "words")) == len(files)
    val = str(world / "images" / "val")
    results = run(world, tmp_path / "run", data=data, labels=str(tmp_path / "words"), val=val)
    assert (results["images"], results["best_knn"] is None) == (len(files), False)
    assert load_classifier(tmp_path / "run").model.token_head.out_features == 4
