"""`tl.evaluate`: accuracy of a checkpoint on a set of images."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from tokenlabel.choices import Arithmetic, Benchmark, Device
from tokenlabel.data.open import HOLDOUT_SEED, holdout, open_images
from tokenlabel.data.source import (
    ImageSource,
    read_by,
    require_a_class,
    require_labels,
    source_fingerprint,
)
from tokenlabel.data.splits import NoSuchPartError
from tokenlabel.errors import InputError
from tokenlabel.evaluation.benchmarks import Answers, answers
from tokenlabel.evaluation.classifier import Classifier
from tokenlabel.evaluation.evaluator import evaluate_source
from tokenlabel.evaluation.load import load_classifier
from tokenlabel.evaluation.metrics import ClassificationCounts, Counts
from tokenlabel.evaluation.published import published_top1
from tokenlabel.evaluation.results import EvalResult, claim_results, write_results
from tokenlabel.models.arithmetic import name_of
from tokenlabel.output import TOKEN_SHARE
from tokenlabel.pictures.confusion import draw_confusion
from tokenlabel.runs.open import TAUGHT_RUN, Run, WhichWeights, holds_run, open_run
from tokenlabel.supervision import RULES, Rule
from tokenlabel.text import first_of
from tokenlabel.training.teach_recipe import TeachRecipe

__all__ = ["evaluate"]

_NAMED = 4


def evaluate(
    *,
    data: str | Path,
    checkpoint: str | Path | None = None,
    model: str | None = None,
    split: str | None = None,
    benchmark: Benchmark = "folder",
    real_labels: Path | None = None,
    weights: WhichWeights = "auto",
    image_size: int | tuple[int, int] | None = None,
    crop_pct: float | None = None,
    token_weight: float = TOKEN_SHARE,
    batch_size: int = 64,
    workers: int = 4,
    device: Device = "auto",
    dtype: Arithmetic = "auto",
    output: str | Path | None = None,
) -> EvalResult:
    """Accuracy of a checkpoint on images; arguments as the options of `tokenlabel eval`.

    Of data that has parts the validation part is read, unless `split` names another. A run's results
    are kept in its folder, others where `output` says. Every process of a torchrun must call this,
    and gets the same result. Raises InputError where something is missing or does not fit.
    """
    processes = PartialState(cpu=device == "cpu" or not torch.accelerator.is_available())
    classifier = load_classifier(
        checkpoint, model, weights=weights, image_size=image_size, crop_pct=crop_pct
    )
    classifier.require_classes()
    if output is not None:  # before the work; the folder of a run is ours
        claim_results(Path(output))
    source, changed = _images(str(data), split, classifier)
    if benchmark != "imagenet-real":  # whose classes are in a file
        unjudged = "; `tokenlabel predict` takes images without classes"
        require_a_class(source, str(data), unjudged)
    right = answers(source, classifier.class_names, benchmark, real_labels)
    if changed is not None:
        right = dataclasses.replace(right, notes=(changed, *right.notes))
    classifier.model.to(processes.device)
    classifier = classifier.in_arithmetic(dtype, batch=batch_size, images=len(source))
    agreed = broadcast_object_list([classifier.dtype])[0]  # the first process's, however it fell
    classifier = dataclasses.replace(classifier, dtype=agreed)
    counts = evaluate_source(
        classifier,
        source,
        right,
        batch_size=batch_size,
        workers=workers,
        token_weight=token_weight,
        processes=processes,
    )
    result = _result(classifier, source, right, counts, str(data), benchmark, token_weight)
    folder = None if output is None else Path(output)
    if folder is None and classifier.run is not None:
        folder = result.own_folder(classifier.run.folder)
    result = dataclasses.replace(result, folder=folder)
    if folder is not None and processes.is_main_process:
        titles = classifier.titles()
        folder.mkdir(parents=True, exist_ok=True)
        found = counts[classifier.rule]
        if isinstance(found, ClassificationCounts) and len(found.confusion):
            draw_confusion(folder / "confusion.png", found.confusion, titles)
        write_results(folder, result, titles)
    processes.wait_for_everyone()
    return result


def _images(data: str, split: str | None, classifier: Classifier) -> tuple[ImageSource, str | None]:
    """The images to judge, and what a reader should know of them.

    Where no `split` is asked for: of the images that others were held out of in training, those.
    """
    run = _trained_by(classifier) if split is None else None
    part = None if run is None else run.facts.get("images_found", {}).get("part")
    try:
        source = open_images(data, split, "val", orientation=classifier.orientation)
    except NoSuchPartError:
        if part is None:
            raise
        source = open_images(data, part, "val", orientation=classifier.orientation)
    source = read_by(source, classifier.decode_rules)
    if run is None or source.found.part not in (None, part):
        return source, None
    share = run.recipe.data.holdout
    trained, held = holdout(require_labels(source, data), share, HOLDOUT_SEED)
    if source_fingerprint(trained) == run.facts.get("images_fingerprint"):
        return held, None
    if source.found.part is not None:
        raise InputError(
            f"{data} has no validation part, and its images are not those that some were held out of in"
            " training: name a part with --split"
        )
    if Path(data).resolve() != Path(run.recipe.data.train).resolve():
        return source, None
    return source, (
        f"the images of {data} were changed after the training, which held {share:.0%} of them out:"
        " all are judged, also those that were trained on"
    )


def _trained_by(classifier: Classifier) -> Run[Any] | None:
    """The run that held images out of its training: the model's own, or that of `teach`."""
    run: Run[Any] | None = classifier.run
    if run is not None:
        return run if run.recipe.data.holdout and not run.recipe.data.val else None
    taught = Path(classifier.facts["checkpoint"]) / TAUGHT_RUN
    if not holds_run(taught):
        return None
    run = open_run(taught, TeachRecipe)
    return run if run.recipe.data.holdout and run.recipe.data.folds == 1 else None


def _result(
    classifier: Classifier,
    source: ImageSource,
    right: Answers,
    counts: dict[Rule, Counts],
    data: str,
    benchmark: Benchmark,
    token_weight: float,
) -> EvalResult:
    facts, settings, found = classifier.facts, classifier.preprocessing, counts[classifier.rule]
    published = None
    if benchmark == "imagenet" and classifier.has_tokens:
        published = published_top1(facts["model"], settings.image_size, settings.crop_pct)
    return EvalResult(
        rule=classifier.rule,
        rules={rule: counts[rule].summary() for rule in RULES if rule in counts},
        images=found.total,
        left_out=right.left_out,
        notes=(*right.notes, *_absent(found, classifier.titles(), right)),
        data=data,
        split=source.found.part,
        benchmark=benchmark,
        found=source.found,
        images_digest=source.digest,
        model=facts["model"],
        checkpoint=facts["checkpoint"],
        weights=facts.get("weights"),
        step=facts.get("step"),
        damaged=tuple(facts.get("damaged", ())),
        image_size=settings.image_size,
        crop_pct=settings.crop_pct,
        fit=settings.fit,
        interpolation=settings.interpolation,
        token_weight=token_weight,
        dtype=name_of(classifier.dtype),
        published=published,
        counts=found,
    )


def _absent(counts: Counts, names: tuple[str, ...], right: Answers) -> list[str]:
    """Classes that could have been predicted but have no image: accuracy says nothing of them."""
    candidates = range(len(names)) if right.candidates is None else right.candidates.tolist()
    absent = [names[i] for i in candidates if not counts.images[i]]
    if not absent:
        return []
    shown = first_of(absent, _NAMED)
    return [f"{len(absent)} of the model's {len(names)} classes have no image here: {shown}"]
