"""What the ImageNet recipes have in common; each recipe changes what its paper changes."""

from __future__ import annotations

from tokenlabel.runs.recipe import (
    Augment,
    Ema,
    Engine,
    Mixing,
    Optimizer,
    Recipe,
    Schedule,
)
from tokenlabel.supervision import GroundTruth, TokenLabels

__all__ = ["deit_style", "token_labeling"]

EIGHT_GPUS = "8 GPUs with 128 images each"
TRAIN = "torchrun --nproc-per-node 8 -m tokenlabel train --data IMAGENET --labels LABELS --recipe "
TOKEN_LABELING = "All Tokens Matter: Token Labeling for Training Better Vision Transformers (2021)"

_GPU = Engine(device_batch=128, precision="auto", compile=True, channels_last=True)


def token_labeling() -> Recipe:
    """Token labeling on ImageNet: 300 epochs and 10 of cool-down, batch 1024.

    Two choices differ from the released code on purpose. Targets are the annotator's probabilities
    on correct crops (`supervision.target=released` brings back the arithmetic of its targets). The
    token weight is the paper's 0.5; the released command line defaulted to 1.0.
    """
    return Recipe(
        augment=Augment(
            scale=(0.08, 1.0),
            hflip=0.5,
            policy="rand-m9-mstd0.5-inc1",
            interpolation="random",
            erasing=0.25,
            erased_tokens_train=True,
            crop_pct=0.9,
        ),
        supervision=TokenLabels(
            token_weight=0.5,
            class_target="annotator",  # the class token learns the annotator's view of the crop
            smoothing=0.1,
        ),
        mixing=Mixing(kind="mixtoken", alpha=1.0),
        optimizer=Optimizer(name="adamw", lr=1.6e-3, weight_decay=0.05),
        schedule=Schedule(
            batch_size=1024,
            epochs=300,
            warmup_epochs=5,
            cooldown_epochs=10,
            warmup_lr=1e-6,
            min_lr=1e-5,
        ),
        ema=Ema(decay=0.99992),
        engine=_GPU,
    )


def deit_style() -> Recipe:
    """Training from ground truth as DeiT introduced it: mixup and CutMix in turns, 300 epochs.

    Defaults of main.py in github facebookresearch/deit, whose loop ends at epoch 300 although it sets
    ten epochs of cool-down, and which reports the plain weights, not the average that it keeps.
    """
    return Recipe(
        augment=Augment(
            policy="rand-m9-mstd0.5-inc1", interpolation="bicubic", erasing=0.25, crop_pct=0.875
        ),
        supervision=GroundTruth(smoothing=0.1),
        mixing=Mixing(kind="cutmix-or-mixup", alpha=1.0, mixup_alpha=0.8),
        optimizer=Optimizer(name="adamw", lr=1e-3, weight_decay=0.05),  # 5e-4 for every 512 images
        schedule=Schedule(
            batch_size=1024,
            epochs=300,
            warmup_epochs=5,
            cooldown_epochs=0,
            warmup_lr=1e-6,
            min_lr=1e-5,
        ),
        ema=Ema(decay=None),
        engine=_GPU,
    )
