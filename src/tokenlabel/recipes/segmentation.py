"""Segmentation: the published results on ADE20K, small runs on street scenes, a linear probe.

Published (paper, section 4.5; released configurations): UperNet, crop 512, AdamW 6e-5 with weight
decay on every parameter, a straight line to zero over 160 000 updates of 16 images after 1500 of
warm-up, sliding window 512 / 341. The released backbones use LayerNorm eps 1e-6, and L, whose
configuration gives no residual divisor, runs with 1. One difference is on purpose: the released code
spends `drop_path_rate` as dropout inside its blocks (drop path itself stays 0); here it is stochastic
depth, as the name says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tokenlabel.errors import InputError, nearest
from tokenlabel.runs.recipe import About, Checkpoints, Engine, Optimizer
from tokenlabel.segmentation.recipe import (
    SegmentationAugment,
    SegmentationData,
    SegmentationLoss,
    SegmentationModelChoice,
    SegmentationRecipe,
    SegmentationTest,
    UpdateSchedule,
)

__all__ = ["RECIPES", "get_segmentation_recipe", "segmentation_recipe_names"]


_RELEASED_NORM = {"norm_eps": 1e-6}


def _published(model: SegmentationModelChoice, result: str) -> SegmentationRecipe:
    return SegmentationRecipe(
        about=About(
            paper="All Tokens Matter: Token Labeling for Training Better Vision Transformers",
            command="tokenlabel segment train --data ADEChallengeData2016 --recipe NAME",
            hardware="8 GPUs, 2 images each, fp16",
            accuracy=result,
        ),
        model=model,
        optimizer=Optimizer(lr=6e-5, weight_decay=0.01, decay_all=True),
        engine=Engine(device_batch=16, precision="auto", sync_batchnorm=True),
    )


def lvvit_s_upernet_ade20k() -> SegmentationRecipe:
    """LV-ViT-S with UperNet: published 47.9 mIoU, 48.6 multi-scale, 83.1 % of pixels."""
    model = SegmentationModelChoice(
        backbone="lvvit_s", channels=256, drop_path=0.1, kwargs=_RELEASED_NORM
    )
    return _published(model, "ADE20K 512: 47.9 mIoU, 48.6 multi-scale, 83.1 pixel accuracy")


def lvvit_m_upernet_ade20k() -> SegmentationRecipe:
    """LV-ViT-M with UperNet: published 49.4 mIoU, 50.6 multi-scale, 83.5 % of pixels."""
    model = SegmentationModelChoice(
        backbone="lvvit_m", channels=256, drop_path=0.2, kwargs=_RELEASED_NORM
    )
    return _published(model, "ADE20K 512: 49.4 mIoU, 50.6 multi-scale, 83.5 pixel accuracy")


def lvvit_l_upernet_ade20k() -> SegmentationRecipe:
    """LV-ViT-L with UperNet: published 50.9 mIoU, 51.8 multi-scale, 84.1 % of pixels."""
    model = SegmentationModelChoice(
        backbone="lvvit_l",
        channels=512,
        drop_path=0.5,
        kwargs=_RELEASED_NORM | {"residual_divisor": 1.0},
    )
    return _published(model, "ADE20K 512: 50.9 mIoU, 51.8 multi-scale, 84.1 pixel accuracy")


def lvvit_s_fcn_ade20k() -> SegmentationRecipe:
    """LV-ViT-S with FCN on the fourth map, at stride 8."""
    model = SegmentationModelChoice(
        backbone="lvvit_s", head="fcn", channels=256, drop_path=0.1, kwargs=_RELEASED_NORM
    )
    return _published(model, "")


def camvid_cpu() -> SegmentationRecipe:
    """A small network from random weights on CamVid's 367 street scenes, on a CPU."""
    return SegmentationRecipe(
        about=About(
            command="tokenlabel segment train --data camvid --recipe camvid_cpu",
            hardware="one CPU core, eleven minutes",
            accuracy="CamVid validation, 101 scenes, 11 classes: 60.8 mIoU, mean of three seeds",
        ),
        data=SegmentationData(workers=1),
        augment=SegmentationAugment(crop=(192, 256), scale=(0.75, 1.5), color=False),
        model=SegmentationModelChoice(
            backbone="resnet10t",
            channels=32,
            dropout=0.0,
            kwargs={"channels": [32, 64, 128, 256], "stem_width": 16},
        ),
        loss=SegmentationLoss(class_balance=0.5),
        optimizer=Optimizer(name="muon", lr=6e-3, weight_decay=0.01),
        schedule=UpdateSchedule(batch_size=8, updates=450, warmup_updates=20, warmup_lr=1e-5),
        test=SegmentationTest(short_side=240, window=None, logit_adjustment=1.0),
        engine=Engine(device="cpu", device_batch=8, precision="auto", channels_last=True),
        checkpoints=Checkpoints(every_minutes=2),
        validate_every=13,
        log_every=10,
    )


def camvid_transfer() -> SegmentationRecipe:
    """A small student fine-tuned on CamVid in minutes, to compare one checkpoint with another."""
    return SegmentationRecipe(
        about=About(
            command="tokenlabel segment train --data camvid --recipe camvid_transfer"
            " --weights RUN --seed N",
            hardware="one CPU core: 5 minutes for a student of 1.3 M parameters and patches of 4",
        ),
        data=SegmentationData(workers=1),
        augment=SegmentationAugment(crop=(96, 128), scale=(0.75, 1.5), color=False),
        model=SegmentationModelChoice(backbone="lvvit_t", channels=32),
        loss=SegmentationLoss(class_balance=0.5),
        optimizer=Optimizer(lr=2e-3, weight_decay=0.05, layer_decay=0.9),
        schedule=UpdateSchedule(batch_size=4, updates=400, warmup_updates=40, warmup_lr=1e-6),
        test=SegmentationTest(short_side=120, window=None),
        engine=Engine(device_batch=8, precision="auto"),
        validate_every=1000,
        log_every=10,
    )


def linear_probe() -> SegmentationRecipe:
    """A linear head on a frozen backbone: what its features know of the classes of pixels.

    The head is that of DINOv2's protocol (Oquab et al. 2023). The schedule is this project's choice and
    was not compared with others. Every update draws new views, so that no features need memory.
    """
    return SegmentationRecipe(
        about=About(
            command="tokenlabel segment train --data ADEChallengeData2016 --recipe linear_probe"
            " --backbone NAME --weights pretrained",
        ),
        model=SegmentationModelChoice(head="linear", freeze=True),
        optimizer=Optimizer(lr=1e-3, weight_decay=1e-4),
        schedule=UpdateSchedule(updates=4000, warmup_updates=150, warmup_lr=1e-6),
        engine=Engine(device_batch=16, precision="auto"),
        validate_every=1000,
        log_every=10,
    )


RECIPES: dict[str, Callable[[], SegmentationRecipe]] = {
    function.__name__: function
    for function in (
        lvvit_s_upernet_ade20k,
        lvvit_m_upernet_ade20k,
        lvvit_l_upernet_ade20k,
        lvvit_s_fcn_ade20k,
        camvid_cpu,
        camvid_transfer,
        linear_probe,
    )
}


def segmentation_recipe_names() -> list[str]:
    """The names of all segmentation recipes, each also with `_smoke`."""
    return list(RECIPES)


def get_segmentation_recipe(name: str) -> SegmentationRecipe:
    """The recipe of a name. Raises InputError, with the nearest name, if there is none.

    NAME_smoke is the same recipe on a CPU, with a thin backbone, small crops and four updates.
    """
    base = name.removesuffix("_smoke")
    if base not in RECIPES:
        raise InputError(
            f"no segmentation recipe {name!r}{nearest(base, RECIPES)};"
            f" there are: {', '.join(RECIPES)}"
        )
    recipe = dataclasses.replace(RECIPES[base](), name=name)
    return recipe if name == base else _smoke(recipe)


def _smoke(recipe: SegmentationRecipe) -> SegmentationRecipe:
    replace = dataclasses.replace
    thin = replace(recipe.model, channels=8, weights=None)
    if thin.backbone.startswith("lvvit"):
        thin = replace(thin, backbone="lvvit_t", kwargs={"depth": 4, "embed_dim": 32})
    return replace(
        recipe,
        data=replace(recipe.data, workers=0),
        augment=replace(recipe.augment, crop=(64, 64)),
        model=thin,
        schedule=replace(recipe.schedule, batch_size=4, max_steps=4, warmup_updates=2),
        test=replace(recipe.test, short_side=64, window=64, stride=43),
        engine=Engine(device="cpu", device_batch=2),
        trackers=(),
        log_every=1,
    )
