"""What to expect of a data set on this machine: annotator, student, batch, disk and time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from shlex import quote

import torch
from timm.layers import to_2tuple

from tokenlabel import recipes
from tokenlabel.annotators.class_map import match_classes
from tokenlabel.api.train import usual_recipe
from tokenlabel.data.source import ImageSource, has_classes
from tokenlabel.errors import InputError
from tokenlabel.evaluation.classifier import class_titles, default_names
from tokenlabel.losses import token_labeling_loss
from tokenlabel.models import DenseModel, build_model
from tokenlabel.models.device import resolve_device
from tokenlabel.models.profile import measure_throughput
from tokenlabel.models.reach import out_of_reach

__all__ = ["advise"]

_ANNOTATOR = "resnet50"
_SIDE = 224
_LABEL_BYTES = 1_000  # of an image in a store: 7 x 7 cells, 5 classes each (docs/formats.md)
_STATES, _KEPT = 4, 3  # tensors of a parameter in a checkpoint: itself, average, two of AdamW
_TRIED = 4  # images of the step that is timed
_LONG = 4 * 3600  # s of training, after which a smaller student is named
_TEACHING = 20  # epochs of `teach`
_BACKWARD = 3  # forward passes that a training step is worth


def advise(source: ImageSource, data: str, decoded_per_second: float) -> Iterator[str]:
    """Lines of what to use and what it takes, from a short timing of the networks on this machine.

    `data` is where the images of `source` are, as commands name it; `decoded_per_second` is how many
    images all processors decode. No weights are downloaded.
    """
    device = resolve_device("auto")
    classes = len(source.class_names)
    yield f"decoding     {decoded_per_second:,.0f} images/s on all processors"
    images = torch.randn(_TRIED, 3, _SIDE, _SIDE, device=device)
    annotator = build_model(_ANNOTATOR).to(device)
    rate = min(measure_throughput(annotator, images, seconds=1.0, warmup=1), decoded_per_second)
    images_of = f"--data {quote(data)}"
    teach = f"tokenlabel teach {images_of} --output annotator --model {_ANNOTATOR}"
    annotate, start = f"{images_of} --output labels --model {_ANNOTATOR}", "--checkpoint FILE"
    if not has_classes(source):
        said = f"the images have no classes: tokenlabel annotate words {annotate}"
    elif _known(source):
        said = f"{_ANNOTATOR} knows these classes: tokenlabel annotate {annotate}"
        start += f", or teach one: {teach} --no-pretrained"
    else:
        taught = _duration(len(source) * _TEACHING * _BACKWARD / rate)
        said = f"teach one these classes: {teach} ({taught})"
        start = "--weights FILE or --no-pretrained"
    reason = out_of_reach(_ANNOTATOR)
    offline = (
        f"; its pretrained weights are not available ({reason}): add {start}" if reason else ""
    )
    yield f"annotator    {said}{offline}"
    size = _bytes(len(source) * _LABEL_BYTES)
    yield f"labels       {size}, {_duration(len(source) / rate)} to annotate"
    name, notice = usual_recipe(None, None, None)
    recipe = recipes.get(name)
    model, schedule = recipe.model, recipe.schedule
    student = DenseModel(model.name, max(classes, 1), img_size=model.image_size).to(device)
    shown = torch.randn(_TRIED, 3, *to_2tuple(model.image_size), device=device)
    step = min(_step(student, shown), decoded_per_second)
    seconds = len(source) * schedule.epochs / step
    batch = min(schedule.batch_size, max(len(source), 1))
    parameters = sum(p.numel() for p in student.parameters())
    yield f"student      {model.name}, recipe {recipe.name}, batch {batch}"
    if notice is not None:
        yield f"             {notice}"
    yield (
        f"training     {step:,.1f} images/s on {device.type}: {schedule.epochs} epochs in"
        f" {_duration(seconds)}"
    )
    if seconds > _LONG and device.type == "cpu":
        yield "on a CPU     --recipe small trains a small student in minutes"
    yield f"checkpoints  {_bytes(parameters * 4 * _STATES * _KEPT)}"


def _known(source: ImageSource) -> bool:
    """Whether ImageNet's classifiers know the classes by their names."""
    names = default_names(1000)
    try:
        match_classes(names, len(names), source.class_names, None, class_titles(names))
    except InputError:
        return False
    return True


def _step(student: DenseModel, images: torch.Tensor) -> float:
    """Images a second of a training step, forward and backward, after a first one."""
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        loss = token_labeling_loss(student(images), None, labels)["loss"]
        loss.backward()  # type: ignore[no-untyped-call]
        float(loss.detach())  # waits for the device
        seconds = time.perf_counter() - start
    return len(images) / seconds


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(seconds, 1):.0f} seconds"
    minutes = seconds / 60
    return f"about {minutes:.0f} minutes" if minutes < 90 else f"about {minutes / 60:,.0f} hours"


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 0.1):,.1f} MB"
