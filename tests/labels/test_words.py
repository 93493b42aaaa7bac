"""Stores of visual words: what their health says, and means of several annotators."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tokenlabel.cli.labels import health
from tokenlabel.cli.show import show
from tokenlabel.errors import InputError
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap, LabelStore, LabelStoreWriter
from tokenlabel.labels.average import average, mean_map
from tokenlabel.labels.maintain import diff, merge
from tokenlabel.labels.sharing import pull, push
from tokenlabel.labels.vocabulary import Vocabulary
from tokenlabel.labels.word_health import check_words
from tokenlabel.pictures.words import word_sheet

WORDS = 12


def store_of(folder, make, keys=40) -> LabelStore:
    vocabulary = Vocabulary(torch.eye(WORDS), torch.zeros(WORDS), 0.1, {"model": "none"})
    random = torch.Generator().manual_seed(0)
    with LabelStoreWriter(folder, num_classes=WORDS, vocabulary=vocabulary) as writer:
        for number in range(keys):
            logits = torch.randn(WORDS, 6, 6, generator=random)
            best = make(number, random)
            logits.scatter_add_(0, best[None], torch.full((1, 6, 6), 6.0))
            writer.add(f"{number}.png", LabelMap.from_logits(logits, 3, Box()))
    return LabelStore(folder)


def halves(number, random):
    """Two words an image, left and right; the left one is the class's."""
    best = torch.full((6, 6), number % 4)
    best[:, 3:] = 4 + int(torch.randint(WORDS - 4, (), generator=random))
    return best


def anywhere(number, random):
    return torch.randint(WORDS, (6, 6), generator=random)


def test_words_that_follow_the_image_are_well(tmp_path) -> None:
    store = store_of(tmp_path / "store", halves)
    truth = {key: i % 4 for i, key in enumerate(store.keys())}
    found = check_words(store, list(store.keys()), truth)
    assert found.warnings == []
    assert found.smoothness > 0.85 > 0.2 > found.smoothness_by_chance
    assert found.bits_of_classes == pytest.approx(2.0)
    assert found.class_bits == pytest.approx(1.0, abs=0.25)  # the left halves tell it all
    assert sum(found.shares) == pytest.approx(1)
    assert WORDS / 2 < found.perplexity <= WORDS
    assert check_words(store, list(store.keys()), {}).class_bits is None


def test_words_that_are_well_have_a_verdict(tmp_path, capsys) -> None:
    store = store_of(tmp_path / "store", halves)
    (tmp_path / "flat").mkdir()
    for number, key in enumerate(store.keys()):
        pixels = np.full((36, 36, 3), 20 + number, np.uint8)
        pixels[:, 18:] = 255 - number
        Image.fromarray(pixels).save(tmp_path / "flat" / key)
    assert health(labels=store.location, data=str(tmp_path / "flat")) == 0
    said = capsys.readouterr()
    lines = (said.out + said.err).splitlines()
    unseen = next(line for line in lines if line.startswith("words never seen"))
    assert unseen.split(None, 3)[3] == "0  words that are never the best of a cell"
    assert "These words look usable for training." in lines


def test_what_is_wrong_with_words_is_said(tmp_path) -> None:
    noise = store_of(tmp_path / "noise", anywhere)
    truth = {key: i % 4 for i, key in enumerate(noise.keys())}
    said = " ".join(check_words(noise, list(noise.keys()), truth).warnings)
    assert "hardly more often than by chance" in said
    assert "bits of the class" in said
    one = store_of(tmp_path / "one", lambda number, random: torch.full((6, 6), number % 2))
    said = " ".join(check_words(one, list(one.keys()), {}).warnings)
    assert "10 of 12 words are nowhere" in said
    assert "Word 0 holds 50% of all cells" in said
    with pytest.raises(InputError, match="belongs to another"):
        check_words(one, ["other"], {})


def test_the_sheet_shows_where_words_are(tmp_path) -> None:
    store = store_of(tmp_path / "store", halves)

    def pixels(key):
        picture = np.zeros((36, 36, 3), np.uint8)
        picture[:, :18] = 60 * (int(key.removesuffix(".png")) % 4)
        return picture

    sheet = np.asarray(word_sheet(store, list(store.keys()), pixels, words=[2, 3]))
    # the color, then patches of left halves: 2 and 3 times 60, well inside the first patches
    for number, word in enumerate((2, 3)):
        top = number * (sheet.shape[0] // 2)
        patch = sheet[top + 25 : top + 85, 8 + 80 + 5 : 8 + 80 + 40]
        assert np.median(patch) == 60 * word
    assert word_sheet(store, list(store.keys()), pixels).height > sheet.shape[0]
    with pytest.raises(InputError, match="no word 12"):
        word_sheet(store, list(store.keys()), pixels, words=[12])


def test_words_of_two_vocabularies_are_not_compared(tmp_path) -> None:
    both = [store_of(tmp_path / name, halves, keys=1) for name in ("a", "b")]
    assert diff(*both).identical == 1
    other = Vocabulary(torch.eye(12), torch.ones(12), 0.1)
    with LabelStoreWriter(tmp_path / "c", num_classes=12, vocabulary=other) as writer:
        writer.add("0.png", both[0]["0.png"])
    with LabelStoreWriter(tmp_path / "classes", num_classes=12) as writer:
        writer.add("0.png", both[0]["0.png"])
    for join in (merge, average):
        with pytest.raises(InputError, match=r"/a holds visual words, .*/classes classes: give"):
            join([LabelStore(tmp_path / "classes"), both[0]], tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(InputError, match=f"different vocabularies: .*--vocabulary {tmp_path}/a"):
        diff(both[0], LabelStore(tmp_path / "c"))


def test_a_sheet_of_words_is_a_png(tmp_path) -> None:
    store = store_of(tmp_path / "store", halves, keys=1)
    with pytest.raises(InputError, match=r"write a \.png"):
        show(labels=Path(store.location), data="images", output=tmp_path / "words.html")
    assert not (tmp_path / "words.html").exists()


def test_a_copy_has_its_vocabulary(tmp_path) -> None:
    store = store_of(tmp_path / "store", halves, keys=3)
    push(tmp_path / "store", f"file://{tmp_path}/pushed")
    pull(f"file://{tmp_path}/pushed", tmp_path / "pulled")
    copy = LabelStore(tmp_path / "pulled")
    assert copy.vocabulary.sha256 == store.vocabulary.sha256
    assert torch.equal(copy.vocabulary.centers, torch.eye(WORDS))
    assert "visual words" in repr(copy)


# -- means -----------------------------------------------------------------------------------------


def maps(count: int, classes: int = 7, k: int = 3, side: int = 4) -> list[LabelMap]:
    random = torch.Generator().manual_seed(0)
    draws = (2 * torch.randn(classes, side, side, generator=random) for _ in range(count))
    return [LabelMap.from_logits(logits, k, Box()) for logits in draws]


def dense(label_map: LabelMap) -> torch.Tensor:
    """All classes' probabilities [C, H, W], the mass outside the K spread over the others."""
    named = label_map.probabilities()
    rest = (1 - named.sum(0)) / (label_map.num_classes - label_map.k)
    return rest.expand(label_map.num_classes, -1, -1).clone().scatter_(0, label_map.classes, named)


def test_the_mean_is_that_of_the_distributions() -> None:
    found = maps(3)
    expected = torch.stack([dense(label_map) for label_map in found]).mean(0)
    whole = mean_map(found, top_k=7)
    assert whole.k == 7
    every = torch.zeros(7, 4, 4).scatter_(0, whole.classes, whole.probabilities())
    assert torch.allclose(every, expected, atol=1e-6)
    best = mean_map(found)
    assert best.k == 3
    assert torch.allclose(best.probabilities(), expected.topk(3, dim=0).values, atol=1e-6)
    coarse = maps(1, side=2)
    assert mean_map([found[0], *coarse]).grid == (2, 2)
    moved = dataclasses.replace(found[0], extent=Box(0, 0, 0.5, 1))
    with pytest.raises(ValueError, match="different parts"):
        mean_map([found[0], moved])


def test_stores_are_averaged_where_all_have_a_label(tmp_path) -> None:
    for name, keys in (("a", "xyz"), ("b", "xzw"), ("other", "v")):
        with LabelStoreWriter(tmp_path / name, num_classes=7) as writer:
            for key, label_map in zip(keys, maps(3), strict=False):
                writer.add(key, label_map)
    a, b = LabelStore(tmp_path / "a"), LabelStore(tmp_path / "b")
    assert average([a, b], tmp_path / "mean") == 2
    mean = LabelStore(tmp_path / "mean")
    assert list(mean) == ["x", "z"]
    assert [left.key for left in mean.manifest.left_out] == ["y", "w"]
    assert torch.equal(mean["x"].classes[0], a["x"].classes[0])
    with pytest.raises(InputError, match="label no image together"):
        average([a, LabelStore(tmp_path / "other")], tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with LabelStoreWriter(tmp_path / "c", num_classes=8) as writer:
        writer.add("x", maps(1, classes=8)[0])
    with pytest.raises(InputError, match="differ in num_classes"):
        average([a, LabelStore(tmp_path / "c")], tmp_path / "other")
