"""`labels info` prints what a store says, in words, and takes nothing in it for markup."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tokenlabel.annotators.class_map import ClassMap
from tokenlabel.cli.labels import info
from tokenlabel.geometry import Box
from tokenlabel.labels import LabelMap, LabelStoreWriter


def test_a_store_is_described_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LabelStoreWriter(
        tmp_path / "store",
        num_classes=3,
        class_names=("[red]", "[/b]", ":cat:"),
        dataset={"found": {"modes": {"RGB": 2}, "left_out": {}, "part": None}},
        annotator={"model": "[/bold] :cat:", "views": {"scales": [0.5, 1.0], "flip": False}},
    ) as writer:
        writer.add("a.jpg", LabelMap.from_logits(torch.zeros(3, 2, 2), k=2, extent=Box()))
    info(labels=str(tmp_path / "store"))
    printed = capsys.readouterr()
    said = [" ".join(line.strip("│ ").split()) for line in (printed.out + printed.err).splitlines()]
    for line in (
        "dataset: found, modes, RGB │ 2",
        "annotator: model │ [/bold] :cat:",
        "annotator: views, scales │ 0.5, 1.0",
        "annotator: views, flip │ no",
    ):
        assert line in said
    assert not any("None" in line or "{" in line for line in said)


def test_a_class_map_is_told_by_its_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a path that is printed may have "-1" in it
    mapping = ClassMap([-1] * 90 + [0, 1, 1] + [-1] * 7, 2)
    with LabelStoreWriter(
        tmp_path / "store", num_classes=2, annotator={"class_map": mapping.description}
    ) as writer:
        writer.add("a.jpg", LabelMap.from_logits(torch.zeros(2, 2, 2), k=2, extent=Box()))
    info(labels="store")
    printed = capsys.readouterr().out
    assert "3 of 100 annotator classes used" in printed
    assert "-1" not in printed
