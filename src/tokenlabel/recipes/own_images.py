"""Recipes for images that no paper has seen."""

from __future__ import annotations

from tokenlabel.recipes.registry import recipe
from tokenlabel.runs.recipe import (
    About,
    Augment,
    Ema,
    Engine,
    Mixing,
    Model,
    Optimizer,
    Recipe,
    Schedule,
)
from tokenlabel.supervision import TokenLabels


@recipe(smoke=Model(name="lvvit_t", image_size=64, kwargs={"depth": 1}))
def starter() -> Recipe:
    """A sound start on a folder of some thousand images: the published recipe, scaled down."""
    return Recipe(
        about=About(
            command="tokenlabel train --data DIR --annotator TIMM_NAME",
            hardware="one GPU; small models also on a CPU",
        ),
        augment=Augment(scale=(0.25, 1.0), policy="rand-m7-mstd0.5-inc1", erasing=0.1),
        model=Model(name="lvvit_s", image_size=224, drop_path=0.1),
        supervision=TokenLabels(token_weight=0.5, class_target="ground-truth"),
        mixing=Mixing(kind="mixtoken"),
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
        engine=Engine(device_batch=64, precision="auto"),
    )
