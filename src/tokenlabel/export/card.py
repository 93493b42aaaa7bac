"""A model card from what a run wrote down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData

from tokenlabel.errors import InputError
from tokenlabel.evaluation.classifier import Classifier
from tokenlabel.runs.open import Run
from tokenlabel.runs.recipe import Recipe
from tokenlabel.runs.recipe_file import to_mapping
from tokenlabel.text import fenced, markdown

__all__ = ["in_python", "model_card"]


def model_card(classifier: Classifier, name: str, license: str = "apache-2.0") -> str:
    """README.md for a model hub: what it is, how it was trained and on which labels, how good it is.

    `name` is the repository's, owner/name, or that of a folder.
    """
    facts, settings = classifier.facts, classifier.preprocessing
    run = classifier.run
    recipe = {} if run is None else to_mapping(run.recipe)
    height, width = settings.image_size
    details: dict[str, Any] = {
        "Model": facts["model"],
        "Classes": classifier.num_classes or "none",
        "Image size": f"{height} x {width}",
    }
    if len(classifier.rules) > 1:
        details["Rule of prediction"] = classifier.rule
    if run is not None:
        labels = run.facts.get("labels") or {}
        details |= {
            "Supervision": recipe["supervision"]["kind"],
            "Fingerprint of the training images": run.facts.get("images_fingerprint"),
            "Fingerprint of the token labels": labels.get("index_sha256", "none"),
        }
    header = ModelCardData(
        license=license,
        library_name="timm",
        tags=["image-classification", "timm", "token-labeling"],
    )
    about = "An image classifier"
    if classifier.num_classes == 0:
        about = "A backbone for images, trained without classes by its patch tokens"
    elif classifier.has_tokens:
        about += " trained with one soft label per patch token (arXiv:2104.10858)"
    facts_as_text = "\n".join(
        f"- **{k}:** {markdown(v)}" for k, v in details.items() if v is not None
    )
    usage = _USAGE.format(
        imports=_IMPORTS if _of_this_package(classifier) else "import timm",
        address=f"{'hf-hub' if '/' in name else 'local-dir'}:{name}",
    )
    content = (
        f"---\n{header.to_yaml()}\n---\n# Model card for {markdown(name)}\n\n"
        f"{about}.\n\n"
        f"## Model details\n\n{facts_as_text}\n\n## Usage\n\n{usage}\n"
    )
    results = _results(run)
    if results:
        content += f"\n## Results\n\n{results}"
    if recipe:
        text = yaml.safe_dump(_public(recipe), sort_keys=False)
        content += f"\n## Recipe\n{fenced(text, 'yaml')}"
    return str(ModelCard(content))


def in_python(classifier: Classifier, address: str) -> str:
    """The statement that loads an exported model: what it registers itself with comes first."""
    first = "import tokenlabel; " if _of_this_package(classifier) else ""
    return f"{first}timm.create_model({address!r}, pretrained=True)"


def _of_this_package(classifier: Classifier) -> bool:
    """Whether timm knows the model by this package alone."""
    return type(classifier.model.backbone).__module__.startswith("tokenlabel.")


def _results(run: Run[Recipe] | None) -> str:
    """A table of all evaluations in the run's folder."""
    if run is None:
        return ""
    lines: list[str] = []
    for result in run.evaluations():
        try:
            lines += _rows(result)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InputError(
                f"{run.folder / 'evaluation'} holds results that no evaluation wrote: remove them"
            ) from None
    if not lines:
        return ""
    names = (
        "images", "benchmark", "weights, update", "size", "crop", "rule", "number", "top-1", "top-5",
        "mAP", "ECE",
    )  # fmt: skip
    head = f"| {' | '.join(names)} |\n{'|---' * len(names)}|"
    return "\n".join([head, *lines, ""])


def _rows(result: Mapping[str, Any]) -> list[str]:
    """One line for each rule of an evaluation."""
    side = "x".join(map(str, result["image_size"]))
    # the first version did not write down the weights that it measured
    weights = f"{result.get('weights') or '?'} {result.get('step') or ''}".strip()
    rows = [
        (
            f"{Path(result['data']).name} {result['split'] or ''}", result["benchmark"], weights, side,
            f"{result['crop_pct']:g}", rule, line["images"], _number(line, "top1", ".2%"),
            _number(line, "top5", ".2%"), _number(line, "map", ".2%"), _number(line, "ece", ".3f"),
        )
        for rule, line in result["rules"].items()
    ]  # fmt: skip
    return [f"| {' | '.join(map(markdown, row))} |" for row in rows]


def _number(line: Mapping[str, float], name: str, form: str) -> str:
    """A measure, where it was made: images with one class have others than those with several."""
    return format(line[name], form) if name in line else ""


def _public(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe without where files lie on the trainer's machine."""
    places = ("train", "val", "labels")
    data = {key: value for key, value in recipe["data"].items() if key not in places}
    model = {key: value for key, value in recipe["model"].items() if key != "weights"}
    return {**recipe, "data": data, "model": model}


_IMPORTS = """import timm

import tokenlabel  # registers the model in timm"""

_USAGE = """```python
{imports}

model = timm.create_model("{address}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
```"""
