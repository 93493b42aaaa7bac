"""Folds: each image is labeled by the network that did not see it, new images by all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

import tokenlabel as tl
from tokenlabel.annotators.classifier import ClassifierSpec
from tokenlabel.annotators.spec import Network
from tokenlabel.data.decode import decode_image
from tokenlabel.data.open import open_source
from tokenlabel.errors import InputError
from tokenlabel.labels.health import check_health
from tokenlabel.runs.folds import open_folds
from tokenlabel.training import taught as taught_module
from tokenlabel.training.taught import best_temperature

SMALL: dict[str, Any] = {
    "model": "resnet10t", "pretrained": False, "image_size": 32, "batch_size": 8, "epochs": 1,
    "lr": 3e-3, "model_kwargs": {"stem_width": 8, "channels": (8, 8, 16, 16)}, "device": "cpu",
    "dtype": "float32",
}  # fmt: skip


def write_images(folder: Path, names: list[str]) -> Path:
    random = np.random.default_rng(len(names))
    for number, name in enumerate(names):
        pixels = random.integers(0, 120, (32, 32, 3))
        pixels[..., 2 * (number % 2)] += 100
        file = folder / ("blue", "red")[number % 2] / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), [f"{n}.png" for n in range(40)])


@pytest.fixture(scope="module")
def taught(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("taught") / "annotator"
    tl.teach(data=str(images), output=output, folds=2, **SMALL)
    return output


def spec(model: Path) -> ClassifierSpec:
    return ClassifierSpec(model=str(model), network=Network(device="cpu", top_k=2))


def direct(model: Path, data: Path, key: str) -> tl.LabelMap:
    """What one network says of one image."""
    source = open_source(str(data))
    annotator = spec(model).build(source.class_names)
    pixels = decode_image(source.read(list(source.keys).index(key)), key, source.rules)
    return annotator.annotate([annotator.prepare(key, pixels)])[0]


def by_class(label_map: tl.LabelMap) -> torch.Tensor:
    """Probabilities [C, H, W] in the order of the classes."""
    return torch.zeros(2, *label_map.grid).scatter_(
        0, label_map.classes.long(), label_map.probabilities()
    )


def test_no_image_is_labeled_by_a_network_that_saw_it(
    images: Path, taught: Path, tmp_path: Path
) -> None:
    manifest = tl.annotate(
        data=str(images), output=tmp_path / "labels", annotator=spec(taught), codec="exact"
    )
    store, folds = tl.LabelStore(tmp_path / "labels"), open_folds(taught)
    assert manifest.labeled == 40
    for fold, member in enumerate(folds.members):
        run = json.loads((member / "run/environment.json").read_text())
        own = [key for key in store if folds.fold_of(key) == fold]
        assert run["images"] == 40 - len(own)  # the others, all of them
        by_it = by_class(direct(member, images, own[0]))
        torch.testing.assert_close(by_class(store[own[0]]), by_it, atol=1e-3, rtol=0)
        other = by_class(direct(folds.members[1 - fold], images, own[0]))
        assert (by_it - other).abs().max() > 3e-3
    assert manifest.annotator["kind"] == "folds"
    assert len(set(manifest.annotator["weights_sha256"])) == 2
    assert manifest.annotator["held_out"]["images"] == 8  # a tenth of all, for each
    assert manifest.annotator["unseen_images"] == 0
    assert check_health(store, dict.fromkeys(store, 0), ("blue", "red")).in_folds


def test_new_images_are_labeled_by_all(taught: Path, tmp_path: Path, capsys) -> None:
    new = write_images(tmp_path / "new", ["x.png", "y.png"])
    made = tl.annotate(
        data=str(new), output=tmp_path / "labels", annotator=spec(taught), codec="exact"
    )
    assert made.annotator["unseen_images"] == 2
    said = capsys.readouterr().err
    assert "warning: 2 of 2 images, such as blue/x.png, are in no fold: if" in said
    assert "give the same folder or tar as then; otherwise a network labels images" in said
    assert not check_health(
        tl.LabelStore(tmp_path / "labels"), {"blue/x.png": 0, "red/y.png": 1}, ("blue", "red")
    ).in_folds
    each = [by_class(direct(m, new, "blue/x.png")) for m in open_folds(taught).members]
    found = by_class(tl.LabelStore(tmp_path / "labels")["blue/x.png"])
    torch.testing.assert_close(found, torch.stack(each).mean(0), atol=1e-3, rtol=0)


def test_other_images_of_known_names_are_warned_of(
    images: Path, taught: Path, tmp_path: Path, capsys
) -> None:
    """Names are all that folds know: another part with the same names looks like the taught one."""
    part = write_images(tmp_path / "val", ["0.png", "1.png", "x.png"])
    tl.annotate(data=str(part), output=tmp_path / "labels", annotator=spec(taught))
    said = capsys.readouterr().err
    assert "warning: 2 of these images have names of the 40 that" in said
    assert "1 of 3 images, such as blue/x.png, are in no fold" in said
    tl.annotate(data=str(images), output=tmp_path / "whole", annotator=spec(taught))
    assert "warning" not in capsys.readouterr().err


def test_a_finished_teaching_is_left_as_it_is_and_other_folds_are_refused(
    images: Path, taught: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in taught.rglob("*.safetensors")}
    again = tl.teach(data=str(images), output=taught, folds=2, **SMALL)
    assert before == {path: path.stat().st_mtime_ns for path in taught.rglob("*.safetensors")}
    assert (again.images, again.held_out) == (40, 8)
    with pytest.raises(InputError, match=r"data\.folds"):
        tl.teach(data=str(images), output=taught, folds=3, **SMALL)


def test_unfinished_folds_label_nothing(images: Path, tmp_path: Path) -> None:
    (tmp_path / "fold-0").mkdir()
    with pytest.raises(InputError, match="unfinished"):
        tl.annotate(data=str(images), output=tmp_path / "labels", annotator=spec(tmp_path))


def test_words_are_those_of_one_network(images: Path, taught: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"give --model {taught / 'fold-0'}"):
        tl.annotate(
            data=str(images),
            output=tmp_path / "x",
            annotator={"kind": "words", "model": str(taught)},
        )


def test_the_temperature_is_that_of_the_logits() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4000, 5) * 2
    labels = torch.multinomial(logits.softmax(1), 1)[:, 0]
    assert best_temperature(3 * logits, labels) == pytest.approx(3, rel=0.06)
    assert best_temperature(logits / 2, labels) == pytest.approx(0.5, rel=0.06)


def test_a_taught_model_keeps_its_temperature_in_its_last_layer(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = iter((2.0, 3.0))
    monkeypatch.setattr(taught_module, "best_temperature", lambda *_: next(fits))
    plain, softer = tmp_path / "plain", tmp_path / "softer"
    tl.teach(data=str(images), output=plain, holdout=0.4, **SMALL)
    tl.teach(data=str(images), output=softer, holdout=0.4, temperature=True, **SMALL)
    found = json.loads((softer / "config.json").read_text())
    a, b = (load_file(folder / "model.safetensors") for folder in (plain, softer))
    torch.testing.assert_close(a["fc.weight"] / found["temperature"], b["fc.weight"])
    assert all(torch.equal(a[name], b[name]) for name in a if not name.startswith("fc."))
    assert found["held_out"]["images"] == 16
    longer = {
        **SMALL,
        "epochs": SMALL["epochs"] + 1,
        "allow_changed": ["schedule.epochs", "schedule.warmup_epochs"],
    }
    tl.teach(data=str(images), output=softer, holdout=0.4, temperature=True, **longer)
    again = json.loads((softer / "config.json").read_text())
    assert (found["temperature"], again["temperature"]) == (2.0, 3.0)  # of other weights
    with pytest.raises(InputError, match="holdout above 0"):
        tl.teach(data=str(images), output=tmp_path / "c", holdout=0.0, temperature=True, **SMALL)


def test_each_fold_has_its_temperature_and_a_stopped_teaching_goes_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = iter((2.0, None, 3.0))

    def fit(*_: object) -> float:
        found = next(fits)
        if found is None:
            raise RuntimeError("power cut")
        return found

    monkeypatch.setattr(taught_module, "best_temperature", fit)
    choices = {"data": str(images), "output": tmp_path / "annotator", "folds": 2, "holdout": 0.2}
    with pytest.raises(RuntimeError, match="power cut"):
        tl.teach(**choices, temperature=True, **SMALL)
    with pytest.raises(InputError, match="unfinished"):
        tl.annotate(data=str(images), output=tmp_path / "x", annotator=spec(tmp_path / "annotator"))
    first = tmp_path / "annotator/fold-0/model.safetensors"
    written = first.stat().st_mtime_ns
    tl.teach(**choices, temperature=True, **SMALL)
    assert first.stat().st_mtime_ns == written
    members = open_folds(tmp_path / "annotator").members
    configs = [json.loads((member / "config.json").read_text()) for member in members]
    assert [config["temperature"] for config in configs] == [2.0, 3.0]


def test_options_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    for options, said in (
        ({"loss": "mse", "smoothing": 0.3}, "smoothing is of the cross-entropy"),
        ({"epochs": 2, "stop_epoch": 9}, "stop_epoch 9 is after the last of 2 epochs"),
    ):
        with pytest.raises(InputError, match=said):
            tl.teach(data="photos", output=tmp_path / "taught", folds=2, **options)
    assert not (tmp_path / "taught").exists()


def test_squared_error_stops_early_and_starts_from_weights(images: Path, tmp_path: Path) -> None:
    first = tl.teach(
        data=str(images), output=tmp_path / "a", loss="mse",
        **{**SMALL, "epochs": 3}, stop_epoch=1,
    )  # fmt: skip
    results = json.loads((first.folder / "run/results.json").read_text())
    assert results["updates"] == 4  # of 12: 36 images, 8 at a time
    tl.teach(
        data=str(images), output=tmp_path / "b", weights=first.folder, weight_decay=0.0,
        **{**SMALL, "lr": 1e-12},
    )  # fmt: skip
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    torch.testing.assert_close(a["conv1.0.weight"], b["conv1.0.weight"], atol=1e-6, rtol=0)


def test_the_squared_error_is_of_probabilities() -> None:
    from tokenlabel.training.classifier import classifier_loss

    logits, labels = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([1])
    truth = F.one_hot(labels, 3)
    expected = ((logits.softmax(1) - truth) ** 2).sum()
    torch.testing.assert_close(classifier_loss(logits, labels, "mse", 0.1), expected)
