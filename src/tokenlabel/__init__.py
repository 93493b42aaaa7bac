"""tokenlabel: one soft label per patch token, for better vision transformers.

Names are loaded on first use, so that `import tokenlabel` is instant. LV-ViT registers itself in timm
as soon as timm is imported, before or after this package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from tokenlabel.api import segment as segment
    from tokenlabel.api.annotate import annotate as annotate
    from tokenlabel.api.evaluate import evaluate as evaluate
    from tokenlabel.api.pack import pack as pack
    from tokenlabel.api.predict import load as load
    from tokenlabel.api.predict import predict as predict
    from tokenlabel.api.teach import teach as teach
    from tokenlabel.api.train import train as train
    from tokenlabel.cli.quickstart import quickstart as quickstart
    from tokenlabel.compare.verb import compare as compare
    from tokenlabel.data.augment import Augmentation as Augmentation
    from tokenlabel.geometry import Box as Box
    from tokenlabel.geometry import View as View
    from tokenlabel.labels import LabelMap as LabelMap
    from tokenlabel.labels import LabelStore as LabelStore
    from tokenlabel.labels import LabelStoreWriter as LabelStoreWriter
    from tokenlabel.labels import token_targets as token_targets
    from tokenlabel.losses import token_labeling_loss as token_labeling_loss
    from tokenlabel.mixing import Mix as Mix
    from tokenlabel.models import DenseModel as DenseModel
    from tokenlabel.output import DenseOutput as DenseOutput
    from tokenlabel.output import fuse as fuse
    from tokenlabel.targets import TokenTarget as TokenTarget

_EXPORTS = {
    "Augmentation": "tokenlabel.data.augment",
    "Box": "tokenlabel.geometry",
    "DenseModel": "tokenlabel.models",
    "DenseOutput": "tokenlabel.output",
    "LabelMap": "tokenlabel.labels",
    "LabelStore": "tokenlabel.labels",
    "LabelStoreWriter": "tokenlabel.labels",
    "Mix": "tokenlabel.mixing",
    "TokenTarget": "tokenlabel.targets",
    "View": "tokenlabel.geometry",
    "annotate": "tokenlabel.api.annotate",
    "evaluate": "tokenlabel.api.evaluate",
    "fuse": "tokenlabel.output",
    "load": "tokenlabel.api.predict",
    "pack": "tokenlabel.api.pack",
    "predict": "tokenlabel.api.predict",
    "quickstart": "tokenlabel.cli.quickstart",
    "teach": "tokenlabel.api.teach",
    "token_labeling_loss": "tokenlabel.losses",
    "token_targets": "tokenlabel.labels",
    "train": "tokenlabel.api.train",
}
_MODULES = {
    "compare": "tokenlabel.compare",  # may be called: see there
    "geometry": "tokenlabel.geometry",
    "labels": "tokenlabel.labels",
    "losses": "tokenlabel.losses",
    "models": "tokenlabel.models",
    "recipes": "tokenlabel.recipes",
    "segment": "tokenlabel.api.segment",  # its verbs are tl.segment.train, .evaluate, .predict
}

__all__ = sorted([*_EXPORTS, "compare", "segment"])


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    else:
        raise AttributeError(f"module 'tokenlabel' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*_EXPORTS, *_MODULES})


@wrapt.when_imported("timm.models")
def _register_models(_module: object) -> None:
    importlib.import_module("tokenlabel.models")
