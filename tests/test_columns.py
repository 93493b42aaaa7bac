"""`Texts` is a sequence of strings like any other."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from tokenlabel.columns import Texts

WORDS = ["a", "", "é", "a/b.jpg", "a"]


def test_texts_are_a_sequence_of_strings() -> None:
    texts = Texts.of(WORDS)
    assert texts == WORDS
    assert list(texts) == WORDS
    assert [texts[i] for i in range(-5, 5)] == WORDS + WORDS
    assert texts[1:4] == WORDS[1:4]
    assert len(texts) == 5
    assert texts.index("é") == 2
    assert texts != [*WORDS, "b"]
    assert texts != ["b", *WORDS[1:]]
    assert texts.take(np.array([3, 0])) == ["a/b.jpg", "a"]
    assert Texts.of([]) == []
    assert pickle.loads(pickle.dumps(texts)) == texts
    for outside in (5, -6):
        with pytest.raises(IndexError):
            texts[outside]
