"""Recipes for images that no paper has seen."""

from __future__ import annotations

import dataclasses

from tokenlabel.recipes.cifar10 import cifar10_lvvit
from tokenlabel.recipes.registry import recipe
from tokenlabel.runs.recipe import (
    About,
    Augment,
    Data,
    Ema,
    Engine,
    Mixing,
    Model,
    Optimizer,
    Recipe,
    Schedule,
)
from tokenlabel.supervision import TokenLabels


@recipe(smoke=Model(name="vit_tiny_patch16_224", image_size=64, kwargs={"depth": 2}))
def finetune() -> Recipe:
    """Pretrained weights fine-tuned on some hundred to some ten thousand images: what most people need.

    A ViT-S of timm, gently: a small rate that falls by a quarter from each layer to the one below it,
    25 epochs, an average of the weights, token labels beside the images' classes. Published
    fine-tuning commands (DeiT, BEiT, MAE) chose the form; the values are this project's choice.
    """
    return Recipe(
        about=About(
            command="tokenlabel train --data DIR --annotator TIMM_NAME --recipe finetune",
            hardware="one GPU: minutes; a CPU: hours, or minutes with a small model and size",
        ),
        augment=Augment(scale=(0.35, 1.0), policy="rand-m7-mstd0.5-inc1", erasing=0.1),
        model=Model(
            name="vit_small_patch16_224.augreg_in21k_ft_in1k",
            image_size=224,
            drop_path=0.1,
            weights="pretrained",
        ),
        supervision=TokenLabels(token_weight=0.5, class_target="ground-truth"),
        mixing=Mixing(kind="mixtoken", probability=0.5),
        optimizer=Optimizer(lr=2e-4, weight_decay=0.05, layer_decay=0.75, clip=1.0),
        schedule=Schedule(
            batch_size=64,
            epochs=25,
            warmup_epochs=2.5,
            cooldown_epochs=0,
            warmup_lr=1e-6,
            min_lr=1e-6,
        ),
        ema=Ema(decay=0.999, warmup=True),
        engine=Engine(device_batch="auto", precision="auto"),
    )


@recipe(smoke=Model(name="lvvit_t", image_size=64, kwargs={"depth": 1}))
def starter() -> Recipe:
    """From random weights on a folder of some thousand images: the published recipe, scaled down.

    Token weight, class target and mixing are those of the runs that were ahead on small data
    (docs/proof.md); the paper has a weight of 0.5, the ground truth, and mixes in every step.
    """
    return Recipe(
        about=About(
            command="tokenlabel train --data DIR --annotator TIMM_NAME",
            hardware="one GPU; small models also on a CPU",
        ),
        augment=Augment(scale=(0.25, 1.0), policy="rand-m7-mstd0.5-inc1", erasing=0.1),
        model=Model(name="lvvit_s", image_size=224, drop_path=0.1),
        # the ground truth alone was 0.6 points worse on Swin after two epochs (docs/proof.md)
        supervision=TokenLabels(token_weight=2.0, class_target="blend"),
        mixing=Mixing(kind="mixtoken", probability=0.5),
        optimizer=Optimizer(lr=5e-4, weight_decay=0.05, clip=5.0),
        schedule=Schedule(
            batch_size=64,
            epochs=100,
            warmup_epochs=5,
            cooldown_epochs=0,
            warmup_lr=1e-6,
            min_lr=1e-6,
        ),
        ema=Ema(decay=0.999, warmup=True),
        engine=Engine(device_batch="auto", precision="auto"),
    )


_SMALL = {"patch_size": 8, "embed_dim": 160, "depth": 4, "num_heads": 5, "stem_width": 24}


@recipe(smoke=Model(name="lvvit_t", image_size=64, kwargs={**_SMALL, "depth": 1}))
def small() -> Recipe:
    """A million parameters from random weights at 64 pixels: a first answer in minutes on a CPU.

    The student and the values of `cifar10_lvvit`, with patches of 8, 20 epochs and more mixing.
    """
    whole = cifar10_lvvit()
    return dataclasses.replace(
        whole,
        about=About(
            paper="none: the values of cifar10_lvvit, docs/proof.md",
            command="tokenlabel train --data DIR --annotator TIMM_NAME --recipe small",
            hardware="two cores of a CPU: 5 minutes for 1000 images",
            accuracy="8 classes of Tiny ImageNet, 150 images each: 80.0 % (one seed, with MixToken in a"
            " tenth of the steps)",
        ),
        # small images load quickly, and two cores compute half as much again as one beside a loader
        data=Data(workers=0),
        model=Model(name="lvvit_t", image_size=64, kwargs=_SMALL),
        # in 20 epochs half of the steps helped both transformers of the proof; two epochs are too few
        mixing=Mixing(kind="mixtoken", probability=0.5),
        schedule=dataclasses.replace(whole.schedule, epochs=20, warmup_epochs=1),
    )
