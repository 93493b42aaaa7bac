"""A verb or a kind of file without a line in the tables of attacks fails here."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from harness import CASES, KINDS, READERS, verb_of

from tokenlabel.cli.main import VERBS


def test_every_verb_is_attacked() -> None:
    attacked = {verb_of(name) for name in CASES}
    assert attacked == set(VERBS), "add a line to CASES in tests/faults/harness.py"
    for name, case in CASES.items():
        assert bool(case.output) or not case.words.count("OUT"), name
        assert case.why_not or "WORLD" in case.words, name


def test_every_kind_of_file_has_a_reader() -> None:
    for name, kind in KINDS.items():
        assert kind.read_by, name
        for reader in kind.read_by:
            assert reader in READERS, f"{name}: {reader}"


def test_every_verb_that_reads_files_reads_a_damaged_one() -> None:
    mutated = {verb_of(reader) for kind in KINDS.values() for reader in kind.read_by}
    share_a_reader = {  # read what another verb reads, by the same function
        "train", "teach", "pack", "show", "export", "view-batch", "labels health", "labels export",
        "labels push", "labels pull", "segment train", "segment predict", "segment compare",
        "annotate segmenter", "annotate words", "labels average", "doctor", "predict",
    }  # fmt: skip
    idle = {verb_of(name) for name, case in CASES.items() if case.why_not}
    assert mutated | share_a_reader | idle == set(VERBS)
