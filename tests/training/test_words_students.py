"""What is done with a student of words once it is trained, and what no interruption changes."""

from __future__ import annotations

import tarfile
from pathlib import Path

import onnxruntime
import pytest
import timm
import torch
from PIL import Image
from words_world import CLASSES, SHORT, SMALL, make_world, run

from tokenlabel.api.annotate import annotate
from tokenlabel.api.train import train
from tokenlabel.cli.export import export
from tokenlabel.cli.show import show
from tokenlabel.cli.view import view
from tokenlabel.data.decode import decode_image
from tokenlabel.errors import InputError
from tokenlabel.evaluation.load import load_classifier
from tokenlabel.labels import LabelStore
from tokenlabel.pictures.explain import explain

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
    with pytest.raises(InputError, match="trained without classes"):
        export(checkpoint=world / "plain", output=tmp_path / "student.onnx")
    assert not (tmp_path / "student.onnx").exists()
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
    with pytest.raises(InputError, match="trained without classes"):
        show((file,), checkpoint=world / "plain", relevance=True, output=tmp_path / "show.png")
    with pytest.raises(InputError, match="trained without classes"):
        show((file,), checkpoint=world / "plain", output=tmp_path / "show.png")
    assert not (tmp_path / "show.png").exists()
    with pytest.raises(InputError, match="trained without classes"):
        view(str(world / "words"), data=str(world / "images"), checkpoint=world / "plain")
    both = {"labels": world / "words", "checkpoint": world / "beside"}
    trained = world / "images" / "train" / "cat" / "0.png"
    show((trained,), **both, relevance=True, output=tmp_path / "show.png")
    assert Image.open(tmp_path / "show.png").width > 100


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
