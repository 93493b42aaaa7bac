"""Small students for CIFAR-10, with which the method is put to the proof (`make proof`).

About a million parameters each, 32 x 32 pixels, patches of 4; everything but the student is the same
in all of them. What a student learns from is the command's to say: `--supervision`, `--mix`.
"""

from __future__ import annotations

from typing import Any

from tokenlabel.recipes.registry import recipe
from tokenlabel.runs.recipe import (
    About,
    Augment,
    Checkpoints,
    Ema,
    Engine,
    Mixing,
    Model,
    Optimizer,
    Recipe,
    Schedule,
)
from tokenlabel.supervision import TokenLabels

_LVVIT = {"patch_size": 4, "embed_dim": 160, "depth": 4, "num_heads": 5, "stem_width": 24}
_VIT = {"patch_size": 4, "embed_dim": 128, "depth": 5, "num_heads": 4}
_SWIN = {
    "patch_size": 4,
    "window_size": 4,
    "embed_dim": 88,
    "depths": [2, 2],
    "num_heads": [4, 8],
}
_RESNET = {"output_stride": 8, "channels": [48, 96, 160, 160]}


def _small(name: str, kwargs: dict[str, Any]) -> Model:
    return Model(name=name, image_size=32, kwargs=kwargs)


@recipe(smoke=_small("lvvit_t", {**_LVVIT, "depth": 1}))
def cifar10_lvvit() -> Recipe:
    """LV-ViT of 4 blocks, width 160: 1.07 M parameters, 8 x 8 tokens."""
    return _cifar10("cifar10_lvvit", _small("lvvit_t", _LVVIT))


@recipe(smoke=_small("vit_tiny_patch16_224", {**_VIT, "depth": 1}))
def cifar10_vit() -> Recipe:
    """Plain ViT of 5 blocks, width 128: 1.01 M parameters, 8 x 8 tokens."""
    return _cifar10("cifar10_vit", _small("vit_tiny_patch16_224", _VIT))


@recipe(smoke=_small("swin_tiny_patch4_window7_224", {**_SWIN, "depths": [1, 1]}))
def cifar10_swin() -> Recipe:
    """Swin of two stages, width 88 and 176: 1.01 M parameters, 4 x 4 tokens."""
    return _cifar10("cifar10_swin", _small("swin_tiny_patch4_window7_224", _SWIN))


@recipe(smoke=_small("resnet10t", {**_RESNET, "channels": [8, 8, 8, 8]}))
def cifar10_resnet() -> Recipe:
    """ResNet-10t, narrow and with output stride 8: 1.06 M parameters, 4 x 4 tokens."""
    return _cifar10("cifar10_resnet", _small("resnet10t", _RESNET))


def _cifar10(name: str, student: Model) -> Recipe:
    return Recipe(
        about=About(
            paper="none: measured here, docs/proof.md",
            command=f"tokenlabel train --data CIFAR10 --labels LABELS --recipe {name}",
            hardware="one core of a CPU with bf16 matrix units, about 5 minutes",
            accuracy="see docs/proof.md",
        ),
        augment=Augment(
            scale=(0.5, 1.0), policy=None, erasing=0.0, interpolation="bilinear", crop_pct=1.0
        ),
        model=student,
        # in so few updates the published 0.5 brings three of the four students less
        supervision=TokenLabels(token_weight=2.0, class_target="blend"),
        mixing=Mixing(kind="mixtoken", probability=0.1),  # more of it needs a longer schedule
        # in so few updates Muon brings every arm much further than AdamW does
        optimizer=Optimizer(name="muon", lr=6e-3, weight_decay=0.05, clip=5.0),
        schedule=Schedule(
            batch_size=64,
            epochs=2,
            warmup_epochs=0.25,
            cooldown_epochs=0,
            warmup_lr=1e-5,
            min_lr=1e-5,
        ),
        ema=Ema(decay=None),
        engine=Engine(device_batch=64, precision="auto"),
        checkpoints=Checkpoints(every_minutes=5.0, keep=1),
        trackers=(),
    )
