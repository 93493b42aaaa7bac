"""`tl.evaluate`: accuracy of a checkpoint on a set of images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from tokenlabel.choices import Arithmetic, Benchmark, Device
from tokenlabel.data.open import HOLDOUT_SEED, holdout, open_images
from tokenlabel.data.source import ImageSource, read_by, require_labels, source_fingerprint
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
from tokenlabel.runs.open import WhichWeights
from tokenlabel.supervision import Rule

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
    source = _images(str(data), split, classifier)
    right = answers(source, classifier.class_names, benchmark, real_labels)
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


def _images(data: str, split: str | None, classifier: Classifier) -> ImageSource:
    """The images to judge.

    Of a data set without parts from which the run held images out of its training, those alone.
    """
    source = open_images(data, split, "val", orientation=classifier.orientation)
    source, run = read_by(source, classifier.decode_rules), classifier.run
    share = 0.0 if run is None else run.recipe.data.holdout
    if run is None or source.found.part is not None or run.recipe.data.val or not share:
        return source
    trained, held = holdout(require_labels(source, data), share, HOLDOUT_SEED)
    if source_fingerprint(trained) != run.facts.get("images_fingerprint"):
        return source
    return held


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
        rules={
            rule: counts[rule].summary() for rule in ("class", "token", "fused") if rule in counts
        },
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
    shown = ", ".join(absent[:_NAMED]) + (" ..." if len(absent) > _NAMED else "")
    return [f"{len(absent)} of the model's {len(names)} classes have no image here: {shown}"]
