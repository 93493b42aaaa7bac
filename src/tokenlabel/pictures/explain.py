"""What labels and models say about one image, as panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokenlabel.errors import InputError, nearest
from tokenlabel.evaluation.classifier import Classifier, class_titles, default_names
from tokenlabel.geometry import Box
from tokenlabel.geometry.render import Pixels
from tokenlabel.labels import LabelMap
from tokenlabel.labels.manifest import word_names
from tokenlabel.pictures.colors import visible_classes
from tokenlabel.pictures.overlay import draw_heat, draw_label_map, shortened
from tokenlabel.pictures.panels import Panel, Row
from tokenlabel.pictures.relevance import attention_rollout, gradient_relevance

__all__ = ["class_probability", "explain", "token_map"]

_RELATIVE = "share of the largest value"


def explain(
    name: str,
    image: Pixels,
    maps: Mapping[str, LabelMap],
    student: Classifier | None = None,
    class_names: Sequence[str] | None = None,
    classes: Sequence[str] = (),
    heat: int = 1,
    relevance: bool = False,
    shown: Pixels | None = None,
) -> Row:
    """All pictures of one image [H, W, 3]: label maps, the student's tokens, heat maps, relevance.

    The tokens are drawn where they learned to name classes. Of a student without classes they are all
    that there is to draw: the visual words, or the annotator's classes, that they learned.
    `shown` is the image as the student takes it [H, W, C], where that is another.

    Heat maps are of `classes` (names or numbers), else of the `heat` most probable ones; relevance is
    of the student's answer, and of `classes`. `class_names` are those of the maps; a student knows its
    own. Raises InputError where these do not go together.
    """
    maps = dict(maps)
    shown = image if shown is None else shown
    answers = student is not None and student.num_classes > 0
    answer = student.predict(shown)[0].top[0] if student is not None and answers else None
    if student is not None and (student.has_tokens or not answers):
        maps["student's tokens"] = token_map(student, shown)
    names = _names(maps, student, class_names)
    asked = _numbers(classes, names)
    chosen = asked or (visible_classes(list(maps.values())[:1]) if maps else [])[:heat]
    panels = [_map_panel(title, image, found) for title, found in maps.items()]
    panels += [
        _heat_panel(
            f"{shortened(names[number])}: {title}",
            image,
            class_probability(found, number),
            found.extent,
            "probability",
        )
        for number in chosen
        for title, found in maps.items()
    ]
    if answer is None:
        return Row(name, image, panels, list(maps.values()), names)
    assert student is not None
    titles = student.titles()
    if relevance:
        explained = [answer.number, *(asked if len(names) == len(titles) else ())]
        panels += _relevance_panels(student, image, shown, list(dict.fromkeys(explained)), titles)
    text = f"{shortened(titles[answer.number])}, {100 * answer.confidence:.0f} %"
    return Row(name, image, panels, list(maps.values()), names, f"answer: {text}")


@torch.inference_mode()
def token_map(classifier: Classifier, image: Pixels, k: int | None = None) -> LabelMap:
    """A model's token predictions on the part of an image [H, W, 3] that it is shown.

    The `k` best of the classes, or words, that tokens name, or all.
    """
    output = classifier.output(classifier.preprocessing.pixels(image)[None])
    logits = output.tokens[0].permute(2, 0, 1)
    return LabelMap.from_logits(logits, k or len(logits), _shown(classifier, image))


def class_probability(label_map: LabelMap, chosen: int) -> NDArray[np.float64]:
    """The probability of one class in each cell, [H, W]; 0 where it is not among the cell's best."""
    is_it = (label_map.classes == chosen).float()
    return np.asarray((label_map.probabilities() * is_it).sum(0).clamp(0, 1), dtype=np.float64)


# -- what to show --------------------------------------------------------------------------------


def _names(
    maps: Mapping[str, LabelMap], student: Classifier | None, known: Sequence[str] | None
) -> tuple[str, ...]:
    """The titles of what the maps name, or without maps of the student's classes."""
    counts = {label_map.num_classes for label_map in maps.values()}
    counts |= {student.num_classes} if student is not None and not counts else set()
    if len(counts) > 1:
        raise InputError(
            f"labels and models know different classes ({', '.join(map(str, sorted(counts)))} of"
            " them): show them one at a time"
        )
    count = counts.pop()
    if known is None and student is not None and student.num_classes == 0:
        # so many words would else be called as ImageNet's classes are
        return word_names(count) if student.vocabulary else tuple(map(str, range(count)))
    if known is None and student is not None and student.num_classes == count:
        return student.titles()
    return class_titles(known or default_names(count))


def _numbers(wanted: Sequence[str], names: Sequence[str]) -> list[int]:
    """Classes by name or number."""
    numbers = {str(i): i for i in range(len(names))} | {name: i for i, name in enumerate(names)}
    unknown = [name for name in wanted if name not in numbers]
    if unknown:
        raise InputError(f"no such class: {unknown[0]!r}{nearest(unknown[0], numbers)}")
    return [numbers[name] for name in wanted]


# -- panels --------------------------------------------------------------------------------------


def _map_panel(title: str, image: Pixels, label_map: LabelMap) -> Panel:
    """The best class of each cell."""
    return Panel(title, lambda axes, colors: draw_label_map(axes, image, label_map, 0.75, colors))


def _heat_panel(
    title: str, image: Pixels, values: NDArray[np.float64], extent: Box, scale: str
) -> Panel:
    """Values in [0, 1] of the cells [h, w] that cover `extent`; `scale` says what they are."""
    return Panel(title, lambda axes, _colors: draw_heat(axes, image, values, extent), scale)


def _relevance_panels(
    classifier: Classifier,
    image: Pixels,
    shown: Pixels,
    classes: Sequence[int],
    names: Sequence[str],
) -> list[Panel]:
    """Attention rollout, and the gradient-weighted relevance for each of `classes`.

    Each picture is scaled by its own greatest value.
    """
    pixels = classifier.preprocessing.pixels(shown)[None]
    device = next(classifier.model.parameters()).device
    inputs = classifier.preprocessing.normalize(pixels.to(device))
    extent = _shown(classifier, image)
    rollout = _scaled(attention_rollout(classifier.model, inputs))
    panels = [_heat_panel("attention rollout", image, rollout, extent, _RELATIVE)]
    for chosen in classes:
        target = torch.tensor([chosen], device=device)
        values = _scaled(gradient_relevance(classifier.model, inputs, target))
        title = f"relevance for {shortened(names[chosen])}"
        panels.append(_heat_panel(title, image, values, extent, _RELATIVE))
    return panels


def _shown(classifier: Classifier, image: Pixels) -> Box:
    height, width = image.shape[:2]
    return classifier.preprocessing.view((height, width)).source_box()


def _scaled(values: Tensor) -> NDArray[np.float64]:
    scaled = values[0].double().cpu()
    return np.asarray(scaled / scaled.max().clamp(min=1e-12))
