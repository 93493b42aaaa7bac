"""LV-ViT: the paper's own models, from scratch, at higher resolution, and on other data.

Values are those of the commands in the released repository's README and of its main.py's defaults
(github zihangJiang/TokenLabeling); where a value is this project's choice, the recipe says so.
Validation uses the released test crops: 0.9 for T and S, 1.0 for M and L.

Fine-tuning recipes start from the folder of the run they continue (`model.weights`); give another
run, or a released checkpoint file, with `--weights`.
"""

from __future__ import annotations

from dataclasses import replace

from tokenlabel.recipes.imagenet import EIGHT_GPUS, TOKEN_LABELING, TRAIN, token_labeling
from tokenlabel.recipes.registry import recipe
from tokenlabel.runs.recipe import (
    About,
    Ema,
    Mixing,
    Model,
    Optimizer,
    Recipe,
    Schedule,
)
from tokenlabel.supervision import GroundTruth

_SMALL = Model(name="lvvit_t", image_size=64, drop_path=0.1, kwargs={"depth": 2})


@recipe(smoke=_SMALL)
def lvvit_t_224() -> Recipe:
    """LV-ViT-T, 8.5M parameters."""
    return replace(
        token_labeling(),
        about=_about("lvvit_t_224", "79.1"),
        model=Model(name="lvvit_t", image_size=224, drop_path=0.1),
    )


@recipe(smoke=_SMALL)
def lvvit_s_224() -> Recipe:
    """LV-ViT-S, 26M parameters."""
    return replace(
        token_labeling(),
        about=_about("lvvit_s_224", "83.3"),
        model=Model(name="lvvit_s", image_size=224, drop_path=0.1),
    )


@recipe(smoke=_SMALL)
def lvvit_m_224() -> Recipe:
    """LV-ViT-M, 56M parameters: more stochastic depth."""
    return replace(
        token_labeling(),
        about=_about("lvvit_m_224", "84.0"),
        model=Model(name="lvvit_m", image_size=224, drop_path=0.2),
        augment=replace(token_labeling().augment, crop_pct=1.0),
    )


@recipe(smoke=_SMALL)
def lvvit_l_288() -> Recipe:
    """LV-ViT-L, 150M parameters, at 288 pixels: a lower rate, stronger augmentation.

    288 is the size of the paper's result; the README's command trains at 224 (`model.image_size`).
    """
    base = token_labeling()
    return replace(
        base,
        about=_about("lvvit_l_288", "85.3", "32 GPUs with 32 images each"),
        model=Model(name="lvvit_l", image_size=288, drop_path=0.3),
        augment=replace(base.augment, policy="rand-n3-m9-mstd0.5-inc1", crop_pct=1.0),
        optimizer=replace(base.optimizer, lr=1e-3),
        engine=replace(base.engine, device_batch=32, activation_checkpointing=True),
    )


@recipe(smoke=_SMALL)
def lvvit_s_384() -> Recipe:
    """LV-ViT-S fine-tuned at 384 pixels: token labels of 24 x 24."""
    return _fine_tuned("lvvit_s_384", lvvit_s_224(), 384, "84.4", start="runs/lvvit_s_224")


@recipe(smoke=_SMALL)
def lvvit_m_384() -> Recipe:
    """LV-ViT-M fine-tuned at 384 pixels, by the values published for S."""
    return _fine_tuned("lvvit_m_384", lvvit_m_224(), 384, "85.4", start="runs/lvvit_m_224")


@recipe(smoke=_SMALL)
def lvvit_m_448() -> Recipe:
    """LV-ViT-M fine-tuned at 448 pixels, by the values published for S."""
    return _fine_tuned("lvvit_m_448", lvvit_m_224(), 448, "85.5", start="runs/lvvit_m_224")


@recipe(smoke=_SMALL)
def lvvit_l_448() -> Recipe:
    """LV-ViT-L fine-tuned at 448 pixels, by the values published for S."""
    return _fine_tuned("lvvit_l_448", lvvit_l_288(), 448, "86.2", start="runs/lvvit_l_288")


@recipe(smoke=_SMALL)
def lvvit_l_512() -> Recipe:
    """LV-ViT-L fine-tuned at 512 pixels, by the values published for S."""
    return _fine_tuned("lvvit_l_512", lvvit_l_288(), 512, "86.4", start="runs/lvvit_l_288")


@recipe(smoke=_SMALL)
def lvvit_s_transfer() -> Recipe:
    """LV-ViT-S carried to other images without token labels, at a small rate: the class loss alone.

    The loss is the paper's; rate, schedule and augmentation are this project's choice, for data sets
    smaller than ImageNet. `lvvit_s_transfer_released` has the released command's values.
    """
    base = lvvit_s_224()
    return replace(
        base,
        about=About(
            paper=TOKEN_LABELING,
            command="tokenlabel train --data DIR --recipe lvvit_s_transfer --weights CHECKPOINT",
            hardware="1 GPU",
            accuracy="depends on the data",
        ),
        model=replace(base.model, weights="runs/lvvit_s_224"),
        augment=replace(base.augment, scale=(0.25, 1.0)),
        supervision=GroundTruth(smoothing=0.1),
        mixing=Mixing(kind="none"),
        optimizer=Optimizer(lr=1e-4, weight_decay=0.05, layer_decay=0.75, clip=1.0),
        schedule=Schedule(
            batch_size=256, epochs=100, warmup_epochs=5, cooldown_epochs=0, min_lr=1e-6
        ),
        ema=Ema(decay=0.999, warmup=True),
    )


@recipe(smoke=_SMALL)
def lvvit_s_transfer_released() -> Recipe:
    """LV-ViT-S carried to other images as the released command does it: long, at the full rate.

    `--model lvvit_s -b 64` on 8 GPUs, `--drop-path 0.1 --dense-weight 0.0 --finetune CHECKPOINT`, the
    rest by default: rate 1.6e-3 at batch 512, 300 epochs and 10 of cool-down, MixToken on, no average.
    """
    base = lvvit_s_224()
    return replace(
        base,
        about=About(
            paper=TOKEN_LABELING,
            command="torchrun --nproc-per-node 8 -m tokenlabel train --data DIR"
            " --recipe lvvit_s_transfer_released --weights CHECKPOINT",
            hardware="8 GPUs with 64 images each",
            accuracy="depends on the data",
        ),
        model=replace(base.model, weights="runs/lvvit_s_224"),
        supervision=GroundTruth(smoothing=0.1),
        schedule=replace(base.schedule, batch_size=512),
        ema=Ema(decay=None),
        engine=replace(base.engine, device_batch=64),
    )


def _fine_tuned(name: str, base: Recipe, side: int, top1: str, start: str) -> Recipe:
    """A constant, tiny rate and no weight decay to speak of, at batch 512 and a larger token grid.

    The released command (for S at 384) sets `--lr 5.e-6 --min-lr 5.e-6 --weight-decay 1.e-8 -b 64` on 8
    GPUs and no average. It names no number of epochs, so its 300 would run; thirty are those of DeiT's
    fine-tuning command, which has the same rate and weight decay (github facebookresearch/deit).
    """
    return replace(
        base,
        about=_about(name, top1),
        model=replace(base.model, image_size=side, weights=start),
        optimizer=replace(base.optimizer, lr=5e-6, weight_decay=1e-8),
        schedule=Schedule(
            batch_size=512,
            epochs=30,
            warmup_epochs=5,
            cooldown_epochs=0,
            warmup_lr=1e-6,
            min_lr=5e-6,
        ),
        ema=Ema(decay=None),
        engine=replace(base.engine, device_batch=64 if side < 448 else 16),
    )


def _about(name: str, top1: str, hardware: str = EIGHT_GPUS) -> About:
    return About(
        paper=TOKEN_LABELING,
        command=TRAIN + name,
        hardware=hardware,
        accuracy=f"ImageNet top-1 {top1} (class and token predictions fused)",
    )
