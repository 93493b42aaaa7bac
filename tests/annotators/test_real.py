"""Classifiers that others pretrained on ImageNet, on 200 of its photographs, beside the checkout."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo, create_transform, resolve_data_config

from tokenlabel.annotators.classifier import ClassifierSpec
from tokenlabel.annotators.spec import Network
from tokenlabel.data.decode import decode_image
from tokenlabel.data.open import open_source


@pytest.mark.parametrize("size", ["lite0", pytest.param("lite2", marks=pytest.mark.slow)])
def test_cells_name_the_photographs_as_timm_does(size: str, shared: Path) -> None:
    """As many right as by timm's own transform at the test size, within 3 of 200.

    The mean over cells of a linear head is the classifier's own answer, so the only difference is
    that of two resizing filters.
    """
    name = f"tf_efficientnet_{size}"
    source = open_source(str(shared / "data" / "imagenet-samples" / "images.tar"))
    annotator = ClassifierSpec(
        model=name,
        checkpoint=shared / "annotators" / f"{name}.safetensors",
        keep_classes=True,
        network=Network(fit="crop"),
    ).build(source.class_names)
    synsets = ImageNetInfo("imagenet-1k").label_names()
    truth = [synsets.index(source.class_names[label]) for label in source.labels]
    images = [source.read(index) for index in range(len(source))]
    inputs = [annotator.prepare("", decode_image(data, ""))[0] for data in images]
    ours = [
        annotator.logits(torch.stack(inputs[start : start + 20])).mean((1, 2)).argmax(1)
        for start in range(0, 200, 20)
    ]
    model = timm.create_model(name)
    model.load_state_dict(annotator._scores.model.state_dict())
    config = resolve_data_config({}, model=model, use_test_size=True)
    transform = create_transform(**config)
    pictures = [transform(Image.open(io.BytesIO(data)).convert("RGB")) for data in images]
    with torch.inference_mode():
        theirs = [
            model.eval()(torch.stack(pictures[start : start + 20])).argmax(1)
            for start in range(0, 200, 20)
        ]
    right, timms = (
        int((torch.cat(answers) == torch.tensor(truth)).sum()) for answers in (ours, theirs)
    )
    assert abs(right - timms) <= 3, (right, timms)
    assert right > 170
