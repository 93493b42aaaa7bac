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
    """Test whether token labels help on your images, before you rely on them.

    Trains the same student with ground truth, with CutMix, with image-level distillation and with token
    labels, using the same seeds, epochs and augmentation. Writes accuracies with confidence intervals,
    learning curves and CPU times to report.html and results.json. The last line is the verdict: use
    token labels, do not use them, or run more seeds. To resume, run the same command again.

    The student starts from random weights (recipe starter), not from pretrained ones (recipe finetune).

    Args:
        data: images: a folder with one subfolder per class, a tar file, WebDataset shards, or
            hfds/owner/name. Without a validation split, a tenth of each class is held out.
        output: folder for the annotator, labels, runs, records and the report.
        annotator: what labels the images: a timm classifier, or a folder written by `tokenlabel
            teach` (default: one is taught first, on the training images, as `tokenlabel teach` does
            by default).
        labels: a label store of these images, instead of an annotator.
        val: validation images, if they are not part of the data.
        recipe: recipe shared by all runs: a name or a YAML file.
        model: student model (default: the recipe's).
        image_size: side of the student's input in pixels.
        batch_size: images per update.
        epochs: epochs per run (default: the recipe's).
        seeds: number of runs per method (default: 3). The same command with a larger number keeps the
            finished runs and adds the new ones.
        budget: wall-clock time of this command, such as 30m or 2h. The speed is measured first;
            epochs and seeds are chosen to fit into what annotation and measurement leave. Teaching an
            annotator takes at most a third of it, with fewer epochs if need be.
        parallel: runs at a time (default: 1 on a GPU; on CPUs one per core, at most 4).
        settings: any other value of the recipe, as section.key=value ...; data.cache=disk decodes the
            images once for all runs.
    """
    given = {**locals(), "settings": all_of(settings)}
    from rich.table import Table

    from tokenlabel.compare.comparison import plus_minus
    from tokenlabel.compare.verb import compare as run
    from tokenlabel.progress import console

    found = run(**given, notice=lambda line: console.print(line, soft_wrap=True, markup=False))
    head = ("accuracy, %", f"against {found.arms[0]}", "95 % interval", "p", "time a run")
    table = Table("training", *head)
    for line in found.lines():
        gap = line.versus
        table.add_row(
            line.arm,
            plus_minus(found.scores(line.arm), 1),
            f"{gap.mean:+.1f}" if gap else "-",
            gap.interval_text() if gap else "-",
            gap.p_text() if gap else "-",
            f"{line.seconds:.0f} s",
        )
    console.print(table)
    print(found.decision())
    print(f"report: {output / 'report.html'}")
