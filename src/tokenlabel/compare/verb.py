"""`tl.compare`: do token labels help on these images? Arms x paired seeds, a report and one sentence."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokenlabel.annotators.kinds import read_spec
from tokenlabel.annotators.spec import AnnotatorSpec
from tokenlabel.annotators.words import WordsSpec
from tokenlabel.api.train import train_recipe
from tokenlabel.compare.annotator import require_weights, taught_annotator
from tokenlabel.compare.budget import Size, hours, measured_rates, sized
from tokenlabel.compare.comparison import Comparison
from tokenlabel.compare.plan import Job, make_records, slug
from tokenlabel.compare.record import Record
from tokenlabel.compare.report import write_report
from tokenlabel.compare.training import Training
from tokenlabel.errors import InputError
from tokenlabel.files import claim_folder, write_atomically
from tokenlabel.labels import LabelStore
from tokenlabel.progress import silent
from tokenlabel.runs.recipe import Data, Recipe
from tokenlabel.supervision import METHODS
from tokenlabel.text import read_json

__all__ = ["ARMS", "compare"]

ARMS = {
    "plain": "ground truth",
    "mixed": "ground truth, CutMix",
    "distilled": "image-level distillation",
    "ours": "token labels",
}
_BASELINE, _METHOD = "labels", "token-labels"  # kinds of supervision
_SEEDS = 3
# beside the plain baseline: what each arm needs where mixing pays
_OTHERS = ((_BASELINE, "cutmix"), ("distillation", "cutmix"), (_METHOD, "mixtoken"))
_SIZE = "size.json"  # settled last before training begins
_TAUGHT = "annotator"  # where one is taught if none is given
_OF_LABELS = ("data", "labels", "annotator")  # what the labels in the folder are made of


def compare(
    *,
    data: str,
    output: str | Path = "runs/compare",
    annotator: str | Mapping[str, Any] | AnnotatorSpec | None = None,
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
    settings: Sequence[str] = (),
    notice: Callable[[str], object] | None = None,
) -> Comparison:
    """Train one student from ground truth, with CutMix, with image-level distillation and with token
    labels: the same images, seeds, epochs and augmentation for all; then compare their accuracy.

    CutMix is given to all arms where it serves ground truth better, as MixToken to token labels. The
    labels are a store's, or an `annotator` makes them (a spec as in `tl.annotate`, or a name alone).
    Without either, one is taught on the training images, as `tl.teach` does by default.
    `budget` ("30m", "1h30m"), of the time from here on, chooses `epochs` and `seeds` by a rate that is
    measured first; without it they are the recipe's epochs and 3 seeds. Teaching takes at most a third
    of it, in fewer epochs where it must. `parallel` runs are made at a time: by default one on a GPU,
    else one a core, at most 4. All else is as in `tl.train`. Writes report.html and results.json to
    `output`; the same call goes on where it was stopped, and with more `seeds` adds runs to those that
    are there. `notice` is called with each line worth reading. Raises InputError.
    """
    if annotator is not None and labels is not None:
        raise InputError("--annotator and --labels both label the images: give one of them")
    for name, number in (("seeds", seeds), ("parallel", parallel)):
        if number is not None and number < 1:
            raise InputError(f"{name} is {number}: give 1 or more")
    if budget is not None:
        hours(budget)  # no time is refused here, before annotation
    _refuse_words(labels, annotator)
    began = time.monotonic()
    say = notice or (lambda _line: None)
    choices = {
        "data": data, "val": val, "recipe": recipe, "model": model, "image_size": image_size,
        "batch_size": batch_size, "workers": 0, "settings": tuple(settings),
    }  # fmt: skip
    asked = {"epochs": epochs, "seeds": seeds, "budget": budget}
    begun = {**choices, "epochs": epochs, "labels": labels}
    folder = Path(output)
    _require_trainable(folder, begun, [(_BASELINE, "none")])
    if labels is not None:
        with silent():
            _require_trainable(folder, begun, _OTHERS)
    elif annotator is None:
        require_weights(folder / _TAUGHT, data)
    folder = claim_folder(folder, ours=lambda path: (path / "choices.json").is_file())
    seeds = _keep(folder, {**choices, **asked, "labels": labels, "annotator": annotator})
    made_by = None
    if labels is None:
        with silent():
            student = _recipe(folder, begun, _BASELINE, "none")
        if annotator is None:
            annotator = str(folder / _TAUGHT)
            made_by = taught_annotator(folder / _TAUGHT, student, budget, say)
            say(made_by)
        choices["labels"] = _annotated(student.data, annotator, folder / "labels", say)
        with silent():
            _require_trainable(folder, {**choices, "epochs": epochs}, _OTHERS)
    else:
        choices["labels"] = labels
    workers = parallel or _parallel()
    size = _size(folder, choices, epochs, seeds, budget, workers, began)
    more = "" if seeds is None or seeds <= size.seeds else f"; now {seeds} seeds"
    say(f"{size.said}{more}")
    choices["epochs"] = size.epochs
    all_seeds = max(size.seeds, seeds or 0)

    def run(**arms: tuple[str, str]) -> list[Record]:
        jobs = [
            _job(folder, ARMS[arm], seed, _of_method(choices, supervision, mix))
            for seed in range(all_seeds)
            for arm, (supervision, mix) in arms.items()
        ]
        return make_records(
            jobs, workers, lambda r: say(f"{r.arm}, seed {r.seed}: {r.score:.2f} %")
        )

    baselines = run(plain=(_BASELINE, "none"), mixed=(_BASELINE, "cutmix"))
    plain, mixed = ARMS["plain"], ARMS["mixed"]
    # by the first seeds alone: it decides what the other runs are, and more seeds change no run
    first = tuple(record for record in baselines if record.seed < size.seeds)
    mixing = Comparison((plain, mixed), first).strongest((plain, mixed)) == mixed
    others = run(
        distilled=("distillation", "cutmix" if mixing else "none"),
        ours=(_METHOD, "mixtoken" if mixing else "none"),
    )
    found = Comparison(tuple(ARMS.values()), (*baselines, *others))
    facts = {
        "images": f"{data}, {found.records[0].details['images']:,} to train on",
        "judged on": _judged_on(found),
        "labels": str(choices["labels"]),
        **({} if made_by is None else {"annotator": made_by}),
        "recipe": f"{recipe}, {size.epochs} epochs, {all_seeds} seeds",
        "size": size.said if all_seeds == size.seeds else f"at first {size.said}",
        "mixing": "in the last two arms too"
        if mixing
        else "in the second arm only: it did not pay",
        "runs at a time": str(workers),
    }
    write_report(folder / "report.html", found, facts)
    _write_results(folder / "results.json", found, facts)
    if budget is not None:
        say(f"took {(time.monotonic() - began) / 60:.1f} minutes of {budget}")
    return found


def _judged_on(found: Comparison) -> str:
    images = found.records[0].details.get("judged_on")  # records of older versions lack it
    return "-" if images is None else f"{images:,} images: one is {100 / images:.2f} points"


def _write_results(file: Path, found: Comparison, facts: Mapping[str, str]) -> None:
    content = {
        "verdict": found.decision(),
        "rival": found.rival,
        "difference": None if found.deciding is None else asdict(found.deciding),
        "facts": facts,
        "arms": [asdict(line) for line in found.lines()],
        "runs": [asdict(record) for record in found.records],
    }
    write_atomically(file, json.dumps(content, indent=2) + "\n")


def _job(folder: Path, arm: str, seed: int, choices: Mapping[str, Any]) -> Job:
    name = f"{slug(arm)}-{seed}"
    training = Training(arm, seed, folder / "runs" / name, choices)
    return Job(arm, seed, folder / "records" / f"{name}.json", training)


def _recipe(folder: Path, choices: Mapping[str, Any], supervision: str, mix: str) -> Recipe:
    """What an arm is trained by. A run in the folder that `train` takes by default has no say in it."""
    return train_recipe(**_of_method(choices, supervision, mix), output=folder)


def _of_method(choices: Mapping[str, Any], supervision: str, mix: str) -> dict[str, Any]:
    """An arm's choices; options of other methods than its own are left out."""
    own = METHODS[supervision].options()
    settings = tuple(
        text
        for text in choices["settings"]
        if not text.startswith("supervision.")
        or supervision == _METHOD
        or text.partition("=")[0].removeprefix("supervision.") in own
    )
    return {**choices, "supervision": supervision, "mix": mix, "settings": settings}


def _require_trainable(
    folder: Path, choices: Mapping[str, Any], arms: Iterable[tuple[str, str]]
) -> None:
    """Build what each arm (supervision, mixing) trains: what cannot be is refused before hours of work.

    Where training has begun in the folder, this was done, and the choices bind. Raises InputError.
    """
    if (folder / _SIZE).exists():
        return
    from tokenlabel.training.ranks import Ranks
    from tokenlabel.training.student import StudentSpec

    for supervision, mix in arms:
        spec = StudentSpec(_recipe(folder, choices, supervision, mix))
        if spec.recipe.model.multi_label:
            raise InputError(
                f"{choices['data']}: images may have several classes, and a comparison is by top-1"
                " accuracy: give images of one class each"
            )
        if spec.held_out is None:
            raise InputError(
                "a comparison is judged on validation images: name them (--val), or hold some out of"
                " the training images (data.holdout above 0)"
            )
        spec.build(Ranks(spec.recipe.engine))


def _keep(folder: Path, choices: Mapping[str, Any]) -> int | None:
    """Write what was asked for, or refuse a folder that was started with something else.

    Until its size is settled nothing is trained in it: then only its labels bind. Afterwards all does
    but the number of seeds, which only grows: the most that was ever asked for is returned.
    """
    file = folder / "choices.json"
    now = json.loads(json.dumps(choices, default=str))
    before = read_json(file, kind=dict) if file.exists() else now
    settled = (folder / _SIZE).exists()
    bound = [name for name in now if name != "seeds"] if settled else _OF_LABELS
    other = [name for name in bound if before.get(name) != now[name]]
    if other:
        kept = folder / "labels"
        reuse = "" if other[0] in _OF_LABELS or not kept.exists() else f", with --labels {kept}"
        raise InputError(
            f"{folder} was started with {other[0]} {before.get(other[0])!r}, now it is"
            f" {now[other[0]]!r}: choose another output folder{reuse}"
        )
    if settled:
        now["seeds"] = max(before.get("seeds") or 0, now["seeds"] or 0) or None
    write_atomically(file, json.dumps(now, indent=2) + "\n")
    seeds: int | None = now["seeds"]
    return seeds


def _refuse_words(
    labels: str | None, annotator: str | Mapping[str, Any] | AnnotatorSpec | None
) -> None:
    """Raises InputError where labels are visual words, or would be."""
    if labels is not None and LabelStore(labels).manifest.words:
        found = f"{labels} holds"
    elif annotator is not None and isinstance(read_spec(annotator), WordsSpec):
        found = "the annotator makes"
    else:
        return
    raise InputError(
        f"{found} visual words, and image-level distillation needs classes: give the labels of a"
        " classifier (--annotator NAME, or `tokenlabel annotate --model NAME`)"
    )


def _annotated(images: Data, annotator: Any, store: Path, say: Callable[[str], object]) -> str:
    """Label the images as students are shown them."""
    from tokenlabel.api.annotate import annotate

    annotate(
        data=images.train,
        split=images.train_split,
        orientation=images.orientation,
        channels=images.channels or (),
        output=store,
        annotator=annotator,
        notice=say,
    )
    return str(store)


def _parallel() -> int:
    import torch

    return 1 if torch.accelerator.is_available() else min(os.cpu_count() or 1, 4)


def _size(
    folder: Path,
    choices: Mapping[str, Any],
    epochs: int | None,
    seeds: int | None,
    budget: str | None,
    workers: int,
    began: float,
) -> Size:
    """As it was begun, as asked for, or as fits the budget."""
    file = folder / _SIZE
    if file.exists():
        known = read_json(file, kind=dict)
        try:
            return Size(int(known["epochs"]), int(known["seeds"]), str(known["said"]))
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{file} is damaged: remove it, and it is made again") from None
    wanted = epochs or _recipe(folder, choices, _METHOD, "none").schedule.epochs
    if budget is None:
        size = Size(
            wanted, seeds or _SEEDS, f"{wanted} epochs, {seeds or _SEEDS} seeds, as asked for"
        )
    else:
        trial = _of_method({**choices, "epochs": wanted}, _BASELINE, "none")
        (rate,) = measured_rates({"one": trial}, folder / "trial", workers).values()
        used = (time.monotonic() - began) / 3600
        size = sized(rate, budget, len(ARMS), workers, wanted, seeds, used)
    write_atomically(file, json.dumps(asdict(size), indent=2) + "\n")
    return size
