"""`tokenlabel compare`: will token labels help on your images?"""

from __future__ import annotations

from pathlib import Path

from tokenlabel.cli.settings import Settings, all_of

__all__ = ["compare"]


def compare(
    *,
    data: str,
    output: Path = Path("runs/compare"),
    annotator: str | None = None,
    labels: str | None = None,
    val: str | None = None,
    recipe: str = "starter",
    model: str | None = None,
    image_size: int | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    seeds: int | None = None,
    budget: str | None = None,
    parallel: int | None = None,
    settings: Settings = (),
) -> None:
    """Say whether token labels help on your images, before you rely on them.

    Trains one student from ground truth, with CutMix, with image-level distillation and with token
    labels, with the same seeds, epochs and augmentation for all; writes accuracies with intervals,
    learning curves and processor times to report.html and results.json, and ends with one sentence: use
    them, do not, or more seeds are needed. Interrupted, the same command goes on.

    Args:
        data: images: a folder of class folders, a tar, WebDataset shards, hfds/owner/name. Without a
            validation part a tenth of each class is held out.
        output: folder of labels, runs, records and report.
        annotator: who labels the images: a timm classifier, or a folder that `tokenlabel teach` wrote.
        labels: a label store of these images, instead.
        val: the validation images, where they are no part of the data.
        recipe: what all arms share, by name or as a YAML file.
        model: another student than the recipe's.
        image_size: side of the student's input in pixels.
        batch_size: images an update.
        epochs: of each run; the recipe's by default.
        seeds: how often each arm is trained; 3 by default.
        budget: wall-clock time, such as 30m or 2h: epochs and seeds are chosen by a rate measured first.
        parallel: runs at a time; by default one on a GPU, else one a core, at most 4.
        settings: any other value of the recipe, as section.key=value ...
    """
    given = {**locals(), "settings": all_of(settings)}
    from rich.table import Table

    from tokenlabel.compare.comparison import plus_minus
    from tokenlabel.compare.verb import compare as run
    from tokenlabel.progress import console

    found = run(**given, notice=lambda line: console.print(line, soft_wrap=True, markup=False))
    table = Table(
        "training", "accuracy, %", f"against {found.arms[0]}", "95 % interval", "time a run"
    )
    for line in found.lines():
        gap = found.gap(line.arm, found.arms[0])
        table.add_row(
            line.arm,
            plus_minus(found.scores(line.arm), 1),
            f"{gap.mean:+.1f}" if gap else "-",
            gap.interval_text() if gap else "-",
            f"{line.seconds:.0f} s",
        )
    console.print(table)
    print(found.decision())
    print(f"report: {output / 'report.html'}")
