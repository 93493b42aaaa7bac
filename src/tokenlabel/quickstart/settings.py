"""What the demo does, in numbers: one place to read them, all shown in its report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tokenlabel.quickstart.scenes import SceneOptions
from tokenlabel.runs.recipe import (
    Augment,
    Checkpoints,
    Data,
    Ema,
    Engine,
    Mixing,
    Model,
    Optimizer,
    Recipe,
    Schedule,
)
from tokenlabel.supervision import Distillation, GroundTruth, Method, TokenLabels

__all__ = ["ARMS", "Annotator", "Arm", "Settings", "student_recipe"]


@dataclass(frozen=True)
class Arm:
    """A way to train the student."""

    name: str
    supervision: Method
    mixing: Mixing


ARMS = (
    Arm("labels only", GroundTruth(), Mixing(kind="none")),
    Arm("+ image-level distillation", Distillation(), Mixing(kind="none")),
    Arm("+ token labels, MixToken", TokenLabels(class_target="blend"), Mixing(kind="mixtoken")),
)


@dataclass(frozen=True)
class Annotator:
    """A small timm CNN that keeps an eighth of its input's resolution.

    It annotates at a larger input than it was taught at: more cells, each seeing less of the scene,
    so that its scores are of what is there and not of what is near.
    """

    model: str = "test_resnet"
    model_kwargs: dict[str, Any] = field(default_factory=lambda: {"output_stride": 8})
    image_size: int = 48
    annotating_size: int = 72
    epochs: int = 16
    batch_size: int = 50
    lr: float = 3e-3
    min_scale: float = 0.1


@dataclass(frozen=True)
class Settings:
    train_scenes: int = 2000
    test_scenes: int = 1000
    scenes: SceneOptions = field(default_factory=SceneOptions)
    annotator: Annotator = field(default_factory=Annotator)
    epochs: int = 10
    workers: int = 1
    model_kwargs: dict[str, Any] = field(
        default_factory=lambda: {
            "patch_size": 4,
            "embed_dim": 64,
            "depth": 4,
            "num_heads": 4,
            "stem_width": 24,
        }
    )


def student_recipe(settings: Settings, arm: Arm, seed: int, scenes: str, labels: str) -> Recipe:
    """A small LV-ViT, the same for every arm but for its targets and how images are mixed."""
    return Recipe(
        name="quickstart",
        seed=seed,
        data=Data(
            train=f"{scenes}/train/images",
            val=f"{scenes}/test/images",
            labels=labels,
            workers=settings.workers,
        ),
        augment=Augment(
            scale=(0.25, 1.0), hflip=0.0, policy=None, erasing=0.0, interpolation="bilinear",
            crop_pct=1.0,
        ),
        model=Model(
            name="lvvit_t", image_size=settings.scenes.size, kwargs=dict(settings.model_kwargs)
        ),
        supervision=arm.supervision,
        mixing=arm.mixing,
        optimizer=Optimizer(lr=2e-3, weight_decay=0.05, clip=5.0),
        schedule=Schedule(
            batch_size=50, epochs=settings.epochs, warmup_epochs=2, cooldown_epochs=0,
            warmup_lr=1e-5, min_lr=1e-5,
        ),
        ema=Ema(decay=None),
        engine=Engine(device="auto", device_batch=50),
        checkpoints=Checkpoints(every_minutes=60, keep=1),
        trackers=(),
    )  # fmt: skip
