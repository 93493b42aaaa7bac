"""The tables of `words.py`, from the records of its runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from pages import with_tables

from tokenlabel.compare.comparison import Comparison, markdown, plus_minus
from tokenlabel.compare.record import Record, read_record
from tokenlabel.compare.statistics import Difference
from tokenlabel.files import write_atomically

RESULTS = Path("proof/words")
BYTES = RESULTS / "bytes.json"  # of an image, by arm
PAGE = Path("docs/words.md")

# the class token learns the ground truth instead of a blend with the teacher's answer
BESIDE_TRUTH = ", true class"
NO_LABELS = ", no labels"
OTHER = "other data after "
SCENES = "scenes after "


class Arm(StrEnum):
    LABELS = "ground truth"
    CLASSES = "token labels"
    WORDS = "words"
    BOTH = "token labels and words"
    CLASSES_BESIDE_TRUTH = f"{CLASSES}{BESIDE_TRUTH}"
    BOTH_BESIDE_TRUTH = f"{BOTH}{BESIDE_TRUTH}"
    FEATURES = "features"
    TENTH = "a tenth"
    TENTH_CLASSES = "a tenth, token labels"
    BEFORE = f"words{NO_LABELS}"
    AFTER = "a tenth after words"
    FROZEN = "a tenth after words, frozen"
    PROBE = "a tenth after words, frozen, mean token"
    BEFORE_PRETRAINED = f"words of a pretrained network{NO_LABELS}"
    AFTER_PRETRAINED = "a tenth after words of a pretrained network"
    FROZEN_PRETRAINED = "a tenth after words of a pretrained network, frozen"
    PROBE_PRETRAINED = "a tenth after words of a pretrained network, frozen, mean token"


# the weights with which students begin on other data
WITH_WORDS = tuple(arm.removesuffix(NO_LABELS) for arm in (Arm.BEFORE, Arm.BEFORE_PRETRAINED))
WITHOUT_WORDS = ("nothing", Arm.LABELS)


def write_tables() -> None:
    records = tuple(read_record(file) for file in sorted(RESULTS.glob("*-*.json")))
    tables = [
        _scores(
            "Taught by one network",
            records,
            (
                Arm.LABELS,
                Arm.CLASSES,
                Arm.CLASSES_BESIDE_TRUTH,
                Arm.WORDS,
                Arm.BOTH,
                Arm.BOTH_BESIDE_TRUTH,
                Arm.FEATURES,
            ),
        ),
        _gaps(
            records,
            (
                (Arm.WORDS, Arm.FEATURES),
                (Arm.WORDS, Arm.CLASSES),
                (Arm.BOTH, Arm.CLASSES),
                (Arm.BOTH, Arm.WORDS),
                (Arm.BOTH_BESIDE_TRUTH, Arm.CLASSES_BESIDE_TRUTH),
                (Arm.BOTH_BESIDE_TRUTH, Arm.WORDS),
            ),
        ),
        _scores(
            "Few labels",
            records,
            (
                Arm.TENTH,
                Arm.TENTH_CLASSES,
                Arm.BEFORE,
                Arm.AFTER,
                Arm.FROZEN,
                Arm.PROBE,
                Arm.BEFORE_PRETRAINED,
                Arm.AFTER_PRETRAINED,
                Arm.FROZEN_PRETRAINED,
                Arm.PROBE_PRETRAINED,
                Arm.LABELS,
            ),
        ),
        _gaps(
            records,
            (
                (Arm.AFTER, Arm.TENTH),
                (Arm.AFTER, Arm.TENTH_CLASSES),
                (Arm.AFTER, Arm.LABELS),
                (Arm.AFTER_PRETRAINED, Arm.LABELS),
                (Arm.PROBE_PRETRAINED, Arm.LABELS),
            ),
        ),
        *(
            table
            for title, before in (("Other data", OTHER), ("CamVid, mean IoU", SCENES))
            for table in (
                _scores(title, records, [before + x for x in (*WITH_WORDS, *WITHOUT_WORDS)]),
                _gaps(
                    records,
                    [(before + x, before + y) for x in WITH_WORDS for y in WITHOUT_WORDS],
                ),
            )
        ),
    ]
    text = "\n\n".join(filter(None, tables))
    write_atomically(PAGE, with_tables(PAGE.read_text(), "words.py", text))
    print(text)


def _scores(title: str, records: Sequence[Record], arms: Sequence[str]) -> str:
    """Means over seeds, in percent; nothing where there is nothing to compare."""
    found, names = Comparison((), tuple(records)), _students(records)
    known: dict[str, float] = json.loads(BYTES.read_text()) if BYTES.exists() else {}
    sized = any(arm in known for arm in arms)
    rows = []
    for arm in arms:
        values = [plus_minus(found.scores(f"{name}, {arm}")) for name in names]
        if set(values) == {"-"}:
            continue
        labels = arm.removesuffix(BESIDE_TRUTH)
        size = f"{known[labels]:,.0f}" if labels in known else ""
        rows.append([arm, *values, *([size] if sized else [])])
    head = [title, *names, *(["bytes an image"] if sized else [])]
    return markdown(head, rows) if len(rows) > 1 else ""


def _gaps(records: Sequence[Record], pairs: Sequence[tuple[str, str]]) -> str:
    """Differences over seeds, in points."""
    found, names = Comparison((), tuple(records)), _students(records)
    rows = []
    for ours, theirs in pairs:
        gaps = [found.difference(f"{name}, {ours}", f"{name}, {theirs}") for name in names]
        if any(gaps):
            values = ["-" if gap is None else _with_interval(gap) for gap in gaps]
            rows.append([f"{ours} - {theirs}", *values])
    return markdown(["difference", *names], rows) if rows else ""


def _with_interval(gap: Difference) -> str:
    if gap.interval is None:
        return f"{gap.mean:+.2f}"
    low, high = gap.interval
    return f"{gap.mean:+.2f} ({low:+.2f} to {high:+.2f})"


def _students(records: Sequence[Record]) -> list[str]:
    return sorted({record.arm.partition(", ")[0] for record in records})
