"""Students of visual words: beside classes, of several annotators, and of images without classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from words_world import WORDS, make_world, run

from tokenlabel.api.annotate import annotate
from tokenlabel.api.evaluate import evaluate
from tokenlabel.errors import InputError
from tokenlabel.evaluation.load import load_classifier
from tokenlabel.evaluation.neighbors import knn_accuracy
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap, LabelStore, LabelStoreWriter
from tokenlabel.pictures import curves
from tokenlabel.runs.recipe import Data, Recipe
from tokenlabel.runs.recipe_file import read_recipe
from tokenlabel.training import loop
from tokenlabel.training.stores import fitted, target_kind
from tokenlabel.training.student import StudentSpec


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "draw_curves", lambda *_: None)
    assert curves


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_world(folder)
    return folder


def test_classes_and_words_have_heads_of_their_own(data: Path, tmp_path: Path) -> None:
    results = run(data, tmp_path / "run")
    assert read_recipe(tmp_path / "run" / "recipe.yaml").model.token_classes == WORDS
    assert set(results["measures"]) == {
        f"{w}/{m}" for w in ("val", "ema") for m in ("top1", "top5", "loss")
    }
    student = load_classifier(tmp_path / "run")
    assert student.model.token_head.out_features == WORDS
    assert (student.num_classes, student.rules) == (3, ("class",))
    judged = evaluate(
        data=str(data / "images"), checkpoint=tmp_path / "run", workers=0, device="cpu"
    )
    assert set(judged.rules) == {"class"}


def test_several_stores_teach_a_head_each(data: Path, tmp_path: Path) -> None:
    both = [str(data / "words"), str(data / "classes")]
    plain = run(data, tmp_path / "run", labels=both)
    recipe = read_recipe(tmp_path / "run" / "recipe.yaml")
    assert recipe.model.token_classes == (None, WORDS)  # classes first
    assert "val/token_top1" in plain["measures"]
    student = load_classifier(tmp_path / "run").model
    assert [head.out_features for head in student.token_heads] == [3, WORDS]
    assert student.token_heads[1].weight.std() > 0.02  # it learned
    weighed = run(data, tmp_path / "weighed", "supervision.label_weights=[0.0001, 1]", labels=both)
    assert weighed["measures"] != plain["measures"]
    again = run(data, tmp_path / "run", labels=both)
    assert again == plain  # complete: the same run is recognized
    recorded = read_recipe(tmp_path / "weighed" / "recipe.yaml")
    assert recorded.data.labels == (both[1], both[0])  # in one order with their weights
    assert recorded.supervision.label_weights == (1, 0.0001)
    assert StudentSpec(recorded).recipe == recorded  # another training of it weighs alike
    with pytest.raises(InputError, match="2 label stores"):
        run(data, tmp_path / "x", "supervision.label_weights=[1]", labels=both)


def test_what_would_teach_nothing_is_refused(data: Path, tmp_path: Path) -> None:
    words, output = str(data / "words"), tmp_path / "run"
    with pytest.raises(InputError, match="hold the same labels: name each store once"):
        run(data, output, labels=[words, f"{words}/"])
    with pytest.raises(InputError, match="token_classes is 17, but these labels make it 11"):
        run(data, output, "model.token_classes=17", labels=words)
    with pytest.raises(InputError, match="a frozen backbone needs weights"):
        run(data, output, labels=words, freeze="backbone")
    assert not output.exists()


def test_words_are_probabilities_beside_released_labels(data: Path, tmp_path: Path) -> None:
    """Classes without normalizers need the released arithmetic; words have theirs."""
    released, words = tmp_path / "released", LabelStore(data / "words")
    with LabelStoreWriter(released, num_classes=3, codec="exact") as writer:
        for key in words:
            scores, classes = torch.randn(3, 5, 5).sort(0, descending=True)
            writer.add(key, LabelMap(scores, classes, None, Box(), 3))
    stores = [words, LabelStore(released)]
    locations = tuple(store.location for store in stores)
    recipe = fitted(Recipe(data=Data(train="images", labels=locations)), stores)
    assert recipe.supervision.target == "released"
    assert [target_kind(recipe, store) for store in stores] == ["released", "probability"]


def test_images_without_classes_then_with_them(data: Path, tmp_path: Path, capsys) -> None:
    flat = {"data": str(data / "flat"), "labels": str(data / "flat-words")}
    results = run(data, tmp_path / "run", val=str(data / "images" / "val"), **flat)
    assert 0 <= results["best_knn"] <= 1
    entries = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert '"token"' in entries
    assert '"class"' not in entries
    student = load_classifier(tmp_path / "run")
    assert (student.num_classes, student.model.token_head.out_features) == (0, WORDS)
    assert student.model(torch.zeros(2, 3, 32, 32)).logits.shape == (2, 0)
    with pytest.raises(InputError, match="trained without classes"):
        evaluate(data=str(data / "images"), checkpoint=tmp_path / "run", workers=0, device="cpu")
    for keep in (True, False):
        spec = {"model": str(tmp_path / "run"), "keep_classes": keep, "network": {"device": "cpu"}}
        with pytest.raises(InputError, match=r"trained without classes.*annotate words"):
            annotate(data=str(data / "images"), output=tmp_path / "none", annotator=spec)
    assert not (tmp_path / "none").exists()
    spec = {"kind": "words", "model": str(tmp_path / "run"), "words": 4, "perplexity": 2.0,
            "network": {"device": "cpu"}}  # fmt: skip
    annotate(data=str(data / "flat"), output=tmp_path / "own-words", annotator=spec)
    assert LabelStore(tmp_path / "own-words").vocabulary.centers.shape == (4, 24)
    with pytest.raises(InputError, match="trained without classes"):
        student.predict(data / "images" / "val")
    after = run(
        data, tmp_path / "after", labels=(), supervision="labels", weights=str(tmp_path / "run")
    )
    assert "val/top1" in after["measures"]
    frozen = run(
        data, tmp_path / "frozen", "ema.decay=null", labels=(), supervision="labels",
        weights=str(tmp_path / "run"), freeze="backbone",
    )  # fmt: skip
    assert "val/top1" in frozen["measures"]
    before, now = (
        student.model.state_dict(),
        load_classifier(tmp_path / "frozen").model.state_dict(),
    )
    same = [name for name in now if name in before and torch.equal(now[name], before[name])]
    assert "backbone.blocks.1.mlp.fc1.weight" in same
    assert "backbone.head.weight" not in same


def test_classes_may_be_left_out_by_choice(data: Path, tmp_path: Path) -> None:
    results = run(data, tmp_path / "run", "model.num_classes=0")
    assert 0 <= results["best_knn"] <= 1  # the validation images keep theirs


def test_words_online_need_a_vocabulary(data: Path, tmp_path: Path) -> None:
    spec = {"kind": "words", "model": "test_resnet", "pretrained": False, "words": 3,
            "perplexity": 2.0, "network": {"image_size": 32, "device": "cpu"},
            "model_kwargs": {"output_stride": 8}}  # fmt: skip
    torch.manual_seed(0)
    weights = tmp_path / "network.pth"
    torch.save(timm.create_model("test_resnet", output_stride=8).state_dict(), weights)
    spec["checkpoint"] = str(weights)
    online = {"labels": (), "online": True}
    with pytest.raises(InputError, match="online words must be known beforehand"):
        run(data, tmp_path / "x", annotator=spec, **online)
    annotate(data=str(data / "flat"), output=tmp_path / "store", annotator=spec)
    spec |= {"vocabulary": str(tmp_path / "store"), "words": None}
    run(data, tmp_path / "run", annotator=spec, **online)
    assert load_classifier(tmp_path / "run").model.token_head.out_features == 3


def test_no_validation_without_labeled_images(data: Path, tmp_path: Path) -> None:
    flat = {"data": str(data / "flat"), "labels": str(data / "flat-words")}
    results = run(data, tmp_path / "run", **flat)
    assert results["best_knn"] is None


def test_mistakes_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"visual words: use supervision\.kind=token-labels"):
        run(data, tmp_path / "x", supervision="distillation")
    with pytest.raises(InputError, match=r"have no classes: give token labels"):
        run(data, tmp_path / "x", data=str(data / "flat"), labels=())
    with pytest.raises(InputError, match=r"have no classes, .* give images in class folders"):
        run(data, tmp_path / "x", data=str(data / "flat"), labels=(), supervision="labels")
    flat = {"data": str(data / "flat"), "labels": str(data / "flat-words")}
    with pytest.raises(
        InputError, match="holds no classes, and a student without classes is judged"
    ):
        run(data, tmp_path / "x", val=str(data / "images" / "val" / "cat"), **flat)
    assert not (tmp_path / "x").exists()


def test_neighbors_name_the_class() -> None:
    random = torch.Generator().manual_seed(0)
    middles = 4 * torch.randn(5, 16, generator=random)
    labels = torch.arange(5).repeat(30)
    assert knn_accuracy(middles[labels] + torch.randn(150, 16, generator=random), labels) > 0.95
    noise = torch.randn(150, 16, generator=random)
    assert knn_accuracy(noise, labels) < 0.5
    # each image is judged by the others: alone of its class it cannot be right
    assert knn_accuracy(torch.eye(3), torch.arange(3)) == 0
