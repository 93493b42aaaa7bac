"""Other transformers and mixers, as published and with token labels.

`*_token_labels` recipes keep a model's own published training and change what the method changes:
token targets, MixToken in place of mixup and CutMix, and the annotator's class target.
"""

from __future__ import annotations

from dataclasses import replace

from tokenlabel.recipes.imagenet import (
    EIGHT_GPUS,
    TOKEN_LABELING,
    TRAIN,
    deit_style,
    token_labeling,
)
from tokenlabel.recipes.registry import recipe
from tokenlabel.runs.recipe import (
    About,
    Augment,
    Ema,
    Mixing,
    Model,
    Optimizer,
    Recipe,
    Schedule,
)
from tokenlabel.supervision import Distillation

_DEIT = "Training data-efficient image transformers & distillation through attention (2021)"
_SMALL_DEIT = Model(name="deit_tiny_patch16_224", image_size=64, kwargs={"depth": 2})
_SMALL_SWIN = Model(name="swin_tiny_patch4_window7_224", image_size=64, kwargs={"depths": (1,) * 4})


@recipe(smoke=Model(name="volo_d1_224", image_size=64))
def volo_d1_224() -> Recipe:
    """VOLO-D1, whose authors trained with token labels: 84.2, against 83.8 without.

    The command of github sail-sg/volo and its main.py's defaults: token weight 0.5, 20 epochs of
    warm-up, no average.
    """
    base = token_labeling()
    return replace(
        base,
        about=About(
            paper="VOLO: Vision Outlooker for Visual Recognition (2021)",
            command=TRAIN + "volo_d1_224",
            hardware=EIGHT_GPUS,
            accuracy="ImageNet top-1 84.2",
        ),
        model=Model(name="volo_d1_224", image_size=224, drop_path=0.1),
        augment=replace(base.augment, crop_pct=0.96),
        schedule=replace(base.schedule, warmup_epochs=20),
        ema=Ema(decay=None),
    )


@recipe(smoke=_SMALL_DEIT)
def deit_small() -> Recipe:
    """DeiT-S from ground truth, 22M parameters."""
    return _deit("deit_small", "deit_small_patch16_224", "79.8")


@recipe(smoke=_SMALL_DEIT)
def deit_base() -> Recipe:
    """DeiT-B from ground truth, 86M parameters."""
    return _deit("deit_base", "deit_base_patch16_224", "81.8")


@recipe(smoke=_SMALL_DEIT)
def deit_small_token_labels() -> Recipe:
    """DeiT-S with token labels."""
    return _with_token_labels(deit_small(), "deit_small_token_labels", "79.8")


@recipe(smoke=_SMALL_DEIT)
def deit_base_token_labels() -> Recipe:
    """DeiT-B with token labels."""
    return _with_token_labels(deit_base(), "deit_base_token_labels", "81.8")


@recipe(smoke=_SMALL_SWIN)
def swin_tiny() -> Recipe:
    """Swin-T from ground truth, 28M parameters.

    config.py of github microsoft/Swin-Transformer, whose rates are per 512 images and stand here for
    1024: 5e-4, 5e-7 in warm-up and 5e-6 at the end become twice as much. There the cosine begins after
    the warm-up, here the warm-up is its first part.
    """
    base = deit_style()
    return replace(
        base,
        about=About(
            paper="Swin Transformer: Hierarchical Vision Transformer using Shifted Windows (2021)",
            command=_from_ground_truth("swin_tiny"),
            hardware=EIGHT_GPUS,
            accuracy="ImageNet top-1 81.3",
        ),
        model=Model(name="swin_tiny_patch4_window7_224", image_size=224, drop_path=0.2),
        optimizer=replace(base.optimizer, lr=1e-3, clip=5.0),
        schedule=replace(base.schedule, warmup_epochs=20, warmup_lr=1e-6, min_lr=1e-5),
    )


@recipe(smoke=_SMALL_SWIN)
def swin_tiny_token_labels() -> Recipe:
    """Swin-T with token labels, on its last map of 7 x 7 tokens."""
    return _with_token_labels(swin_tiny(), "swin_tiny_token_labels", "81.3")


@recipe(smoke=Model(name="mixer_s32_224", image_size=64))
def mixer_small_token_labels() -> Recipe:
    """Mixer-S/16 with token labels: a model without class token, trained from scratch.

    This project's choice: LV-ViT's training, unchanged.
    """
    return _as_lvvit(
        "mixer_small_token_labels",
        "mixer_s16_224",
        paper="MLP-Mixer: An all-MLP Architecture for Vision (2021)",
        accuracy="not known to this project: measure it",
    )


@recipe(smoke=Model(name="coatnet_pico_rw_224", image_size=64))
def coatnet_token_labels() -> Recipe:
    """CoAtNet-0 with token labels: convolution below, attention above, as UniFormer is built.

    This project's choice: LV-ViT's training, unchanged.
    """
    return _as_lvvit(
        "coatnet_token_labels",
        "coatnet_0_rw_224",
        paper="CoAtNet (2021) stands for UniFormer (2022), which timm has not",
        accuracy="UniFormer-S, of the same design: ImageNet top-1 82.9 -> 83.4 by token labels",
    )


@recipe(smoke=Model(name="test_resnet", image_size=64, kwargs={"heads": "class"}))
def relabel_resnet50() -> Recipe:
    """ResNet-50 on labels pooled from the annotator's map under each crop, with CutMix (ReLabel).

    configs/relabel_train_resnet50_cutmix.yaml of github naver-ai/relabel_imagenet. There the last five
    epochs are without CutMix, and the annotator is EfficientNet-L2.
    """
    return Recipe(
        about=About(
            paper="Re-labeling ImageNet: from Single to Multi-Labels, from Global to Localized"
            " Labels (2021)",
            command=TRAIN + "relabel_resnet50",
            hardware=EIGHT_GPUS,
            accuracy="ImageNet top-1 80.2 (78.9 without CutMix)",
        ),
        model=Model(name="resnet50", image_size=224, kwargs={"heads": "class"}),
        augment=Augment(
            policy=None, color_jitter=0.4, interpolation="bilinear", erasing=0.0, crop_pct=0.875
        ),
        supervision=Distillation(distillation_share=1.0, smoothing=0.0),
        mixing=Mixing(kind="cutmix", alpha=1.0),
        optimizer=Optimizer(name="adamp", lr=2e-3, weight_decay=0.01),
        schedule=Schedule(
            batch_size=1024,
            epochs=300,
            warmup_epochs=5,
            cooldown_epochs=0,
            warmup_lr=0.0,
            min_lr=0.0,
        ),
        ema=Ema(decay=None),
        engine=deit_style().engine,
    )


def _as_lvvit(name: str, model: str, paper: str, accuracy: str) -> Recipe:
    """LV-ViT's training of another model."""
    return replace(
        token_labeling(),
        about=About(
            paper=f"{paper}; {TOKEN_LABELING}",
            command=TRAIN + name,
            hardware=EIGHT_GPUS,
            accuracy=accuracy,
        ),
        model=Model(name=model, image_size=224, drop_path=0.1),
    )


def _deit(name: str, model: str, top1: str) -> Recipe:
    base = deit_style()
    return replace(
        base,
        about=About(
            paper=_DEIT,
            command=_from_ground_truth(name),
            hardware=EIGHT_GPUS,
            accuracy=f"ImageNet top-1 {top1}",
        ),
        model=Model(name=model, image_size=224, drop_path=0.1),
        augment=replace(base.augment, repeats=3),
    )


def _with_token_labels(base: Recipe, name: str, without: str) -> Recipe:
    method = token_labeling()
    return replace(
        base,
        about=About(
            paper=f"{base.about.paper}; {TOKEN_LABELING}",
            command=TRAIN + name,
            hardware=EIGHT_GPUS,
            accuracy=f"not known to this project: measure it (without token labels {without})",
        ),
        supervision=method.supervision,
        mixing=method.mixing,
        augment=replace(base.augment, repeats=1),
        ema=method.ema,
    )


def _from_ground_truth(name: str) -> str:
    return TRAIN.replace("--labels LABELS ", "") + name
