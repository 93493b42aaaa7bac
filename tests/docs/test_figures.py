"""Figures that sentences repeat are those of the proof's records."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "proof" / "results"
LONGEST, LONG, WHOLE = (f"cifar10-5000-{epochs}ep" for epochs in (100, 40, 20))
MANY, SOME, FEW = "cifar10-1000-30ep", "cifar10-500-60ep", "cifar10-50-100ep"
OURS, BASE = "tokens-mixtoken", "labels-cutmix"
PROOF = "docs/proof.md"

# page, sentence with # for each figure, where they come from: runs (all seeds) or annotators
CLAIMS = [
    (
        "README.md",
        "LV-ViT has # instead of # %, ViT # instead of # %",
        [f"{SOME}-{s}-{arm}" for s in ("lvvit", "vit") for arm in (f"{OURS}-taught", BASE)],
    ),
    (
        "README.md",
        "(ViT # and # %, LV-ViT # and # %; one seed); after 33, ViT has # %",
        [
            f"{LONG}-vit-{OURS}-strong",
            f"{LONGEST}-vit-{BASE}",
            f"{LONG}-lvvit-{OURS}-strong",
            f"{LONGEST}-lvvit-{BASE}",
            f"{LONGEST}-vit-{OURS}-accurate-part3",
        ],
    ),
    (
        "docs/choosing.md",
        "# % on unseen images became # % with 5 folds and # % with 2",
        [f"annotator-cifar10-1000-{by}" for by in ("taught", "folds-5", "folds-2")],
    ),
    (
        PROOF,
        "LV-ViT ends at # % and ViT at #, ground truth with CutMix at # and #",
        [f"{LONGEST}-{s}-{arm}" for arm in (f"{OURS}-accurate", BASE) for s in ("lvvit", "vit")],
    ),
    (
        PROOF,
        "LV-ViT # instead of #, ViT # instead of #, Swin # instead of #, the ResNet # instead of #",
        [
            f"{WHOLE}-{run}-{by}"
            for run in (f"lvvit-{OURS}", f"vit-{OURS}", f"swin-{OURS}", "resnet-tokens")
            for by in ("accurate", "taught")
        ],
    ),
    (
        PROOF,
        "#, # and # % for LV-ViT, #, # and # % for the ResNet",
        [
            f"{MANY}-{s}-tokens-{by}"
            for s in ("lvvit", "resnet")
            for by in ("taught", "long", "short")
        ],
    ),
    (
        PROOF,
        "better labels for the ResNet (# %) than those of 5 folds (#) or 2 (#),"
        " which end below ground truth (#)",
        [
            *(f"{MANY}-resnet-tokens-{by}" for by in ("taught", "folds-5", "folds-2")),
            f"{MANY}-resnet-labels",
        ],
    ),
    (
        PROOF,
        "LV-ViT learns # % from them (one network: # ±",
        [f"{WHOLE}-lvvit-{OURS}-{by}" for by in ("folds-2", "taught")],
    ),
    (
        PROOF,
        "brings LV-ViT from # % (CutMix) to # % and ViT from # to # % (MixToken",
        [f"{SOME}-{s}-{arm}" for s in ("lvvit", "vit") for arm in (BASE, f"{OURS}-taught")],
    ),
    (
        PROOF,
        "LV-ViT has # % with MixToken and # % from ground truth with CutMix, ViT # and #,"
        " the ResNet # and # %",
        [
            *(f"{FEW}-{s}-{arm}" for s in ("lvvit", "vit") for arm in (f"{OURS}-taught", BASE)),
            *(f"{FEW}-resnet-{arm}" for arm in ("tokens-taught", "labels")),
        ],
    ),
]


def measured(name: str) -> float:
    """Percent: the mean over seeds, or an annotator's accuracy on unseen images."""
    if name.startswith("annotator-"):
        return 100 * float(json.loads((RESULTS / f"{name}.json").read_text())["held_out_top1"])
    files = sorted(RESULTS.glob(f"{name}-[0-9].json"))
    return statistics.fmean(json.loads(file.read_text())["score"] for file in files)


@pytest.mark.parametrize(("page", "sentence", "names"), CLAIMS, ids=range(len(CLAIMS)))
def test_a_sentence_says_what_was_measured(page: str, sentence: str, names: list[str]) -> None:
    text = re.sub(r"\s+", " ", (ROOT / page).read_text())
    found = re.search(re.escape(sentence).replace(r"\#", r"([\d.]*\d)"), text)
    assert found, f"{page} has no such sentence: keep it, or take it out of this test"
    digits = [len(figure.partition(".")[2]) for figure in found.groups()]
    assert list(found.groups()) == [
        f"{measured(name):.{n}f}" for name, n in zip(names, digits, strict=True)
    ]
