"""What a run of the proof is: its images, annotator, label store, student and arm.

Everything is a command of the package (`Run.training`, `Annotator.teach`, `Labels.annotate`): what is
executed is what a reader can type.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from networks import (
    FINE_TUNING,
    LARGE,
    PRETRAINED,
    PRETRAINED_SIDE,
    SMALL,
    STRONG,
    TEACHING,
    Network,
)

from tokenlabel.compare.training import Training

WORK = "runs/proof"
RESULTS = Path("proof/results")
WEIGHTS = f"{WORK}/pretrained.safetensors"  # a link to the file that was given
SEEDS = (0, 1, 2)
FULL_EPOCHS = 20
LONG_EPOCHS = 40
LONGEST_EPOCHS = 100
FEW_PASSES = 300_000  # images that go through a student where there are fewer
FEW_IMAGES = 5000  # so few or fewer are validated twice, others ten times
FEWEST_SEEN = 50_000  # images that go through an annotator, at least

STUDENTS = {
    "lvvit": "LV-ViT, 1.07 M",
    "vit": "ViT, 1.01 M",
    "resnet": "ResNet, 1.06 M",
    "swin": "Swin, 1.01 M",
}


@dataclass(frozen=True)
class DataSet:
    title: str
    classes: int
    per_class: int  # all training images of a class
    image_size: int
    students: tuple[str, ...]
    settings: tuple[str, ...] = ()  # what differs from the recipes


DATA = {
    "cifar10": DataSet("CIFAR-10", 10, 5000, 32, tuple(STUDENTS)),
    # patches of 8 for images of 64: as many tokens as on CIFAR-10, all else as its recipes fixed it
    "tinyimagenet100": DataSet(
        "Tiny ImageNet, 100 classes", 100, 500, 64, ("lvvit", "vit"), ("model.kwargs.patch_size=8",)
    ),
}


@dataclass(frozen=True)
class Images:
    """So many training images of each class of a data set, which students see so many times."""

    data: str
    per_class: int
    epochs: int

    @property
    def subset(self) -> str:
        return f"{self.data}-{self.per_class}"

    @property
    def name(self) -> str:
        return f"{self.subset}-{self.epochs}ep"

    @property
    def count(self) -> int:
        return self.per_class * DATA[self.data].classes

    @property
    def title(self) -> str:
        return f"{DATA[self.data].title}, {self.per_class:,} images a class, {self.epochs} epochs"

    @property
    def batch_size(self) -> int:
        """Small ones for few images, so that there are a few thousand updates."""
        if self.per_class == DATA[self.data].per_class:
            return 512 if self.epochs >= LONG_EPOCHS else 256
        return 128 if self.epochs < 100 else 64

    @property
    def train(self) -> str:
        return f"{WORK}/{self.data}/train-{self.per_class}.csv"

    @property
    def val(self) -> str:
        return f"{WORK}/{self.data}/val"


def images(data: str, per_class: int) -> Images:
    """All of a data set for 20 epochs, or fewer images for more, up to 100."""
    if per_class >= DATA[data].per_class:
        return Images(data, DATA[data].per_class, FULL_EPOCHS)
    count = per_class * DATA[data].classes
    return Images(data, per_class, min(100, max(FULL_EPOCHS, FEW_PASSES // count)))


@dataclass(frozen=True)
class Arm:
    """A way to train a student."""

    title: str
    supervision: str
    mix: str


ARMS = {
    "labels": Arm("ground truth", "labels", "none"),
    "labels-cutmix": Arm("ground truth, CutMix", "labels", "cutmix"),
    "distillation": Arm("image-level distillation", "distillation", "none"),
    "distillation-cutmix": Arm("image-level distillation, CutMix", "distillation", "cutmix"),
    "tokens": Arm("token labels", "token-labels", "none"),
    "tokens-mixtoken": Arm("token labels, MixToken", "token-labels", "mixtoken"),
}
BASELINES = ("labels", "labels-cutmix")
DISTILLED = ("distillation", "distillation-cutmix")
OURS = ("tokens", "tokens-mixtoken")
MIXING = "mixing.probability=0.5"  # in half of the steps, of every arm that mixes


@dataclass(frozen=True)
class Annotator:
    """A classifier: taught here from random weights, or pretrained and perhaps fine-tuned here."""

    title: str
    options: tuple[str, ...] = ()  # of `teach`; none for one that is used as it is
    pretrained: bool = False
    epochs: int = 0  # at least; few images are seen as often as it takes
    batch_size: int | None = None  # None: that of the students
    # pixels it labels images at: its stride times as many cells as the students have tokens
    shown: int = 64

    def teach(self, images: Images, output: str) -> list[str]:
        start = ["--weights", WEIGHTS] if self.pretrained else ["--no-pretrained"]
        batch_size = self.batch_size or images.batch_size
        data = ["--data", images.train, "--batch-size", str(batch_size)]
        epochs = max(self.epochs, FEWEST_SEEN // images.count)
        options = [*start, *self.options, "--epochs", str(epochs)]
        return ["teach", *data, "--output", output, *options]


def taught(
    title: str,
    *options: str,
    model: Network = SMALL,
    side: int = 48,
    epochs: int = 16,
    batch_size: int | None = None,
    shown: int = 64,
    lr: float | None = None,
) -> Annotator:
    """A ResNet from random weights."""
    teaching = TEACHING if lr is None else {**TEACHING, "lr": lr}
    return Annotator(
        title,
        (
            *model.options, "--image-size", str(side),
            *(word for name, value in teaching.items() for word in (f"--{name}", str(value))),
            "--holdout", "0.05", "--cache", "device", *options,
        ),
        epochs=epochs,
        batch_size=batch_size,
        shown=shown,
    )  # fmt: skip


ANNOTATORS = {
    "taught": taught("taught on the same images"),
    "folds-2": taught("taught in 2 folds", "--folds", "2"),
    "folds-5": taught("taught in 5 folds", "--folds", "5"),
    "mse": taught("taught by squared error", "--loss", "mse"),
    "early": taught("taught, stopped at a quarter", "--stop-epoch", "4"),
    "short": taught("taught for 5 epochs", epochs=5),
    "long": taught("taught for 32 epochs", epochs=32),
    "large": taught("ResNet-18, taught on the same images", model=LARGE, side=64, epochs=24),
    "strong": taught(
        "ResNet-18 at 96 pixels, taught on the same images",
        model=STRONG, side=96, epochs=20, batch_size=512, shown=128,
    ),
    "accurate": taught(
        "ResNet-18 at 128 pixels, taught on the same images", "--min-scale", "0.7",
        model=STRONG, side=128, epochs=14, batch_size=512, shown=128, lr=2e-2,
    ),
    "pretrained": Annotator("pretrained on ImageNet, as it is", pretrained=True, shown=PRETRAINED_SIDE),
    "finetuned": Annotator(
        "pretrained on ImageNet, fine-tuned on the same images",
        (
            "--model", PRETRAINED, "--image-size", "128", "--lr", "5e-4",
            "--holdout", "0.05", "--cache", "device",
        ),
        pretrained=True,
        epochs=8,
        shown=PRETRAINED_SIDE,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Labels:
    """The label store of an annotator: its input size, averaged with the mirrored image."""

    images: Images
    by: str  # of ANNOTATORS

    @property
    def name(self) -> str:
        return f"{self.images.subset}-{self.by}"

    @property
    def annotator(self) -> str:
        return f"{WORK}/annotators/{self.name}"

    @property
    def store(self) -> str:
        return f"{WORK}/labels/{self.name}"

    @property
    def as_it_is(self) -> bool:
        return not ANNOTATORS[self.by].options

    def annotate(self) -> list[str]:
        model = [self.annotator]
        if self.as_it_is:
            model = [PRETRAINED, "--checkpoint", WEIGHTS]
        return [
            "annotate", "--data", self.images.train, "--output", self.store, "--model", *model,
            "--image-size", str(ANNOTATORS[self.by].shown), "--flip", "--batch-size", "64",
        ]  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One training run."""

    images: Images
    student: str
    arm: str
    seed: int
    by: str = "taught"  # of ANNOTATORS: who made its labels
    parts: int = 1  # trained for this part of the epochs
    start: Run | None = None  # whose weights it begins with, on other images

    @property
    def title(self) -> str:
        """What it is trained with, and after what."""
        before = self.start
        after = f" after {ARMS[before.arm].title} on {before.images.title}" if before else ""
        return f"{ARMS[self.arm].title}{after}"

    @property
    def name(self) -> str:
        by = "" if self.labels is None else f"-{self.by}"
        part = "" if self.parts == 1 else f"-part{self.parts}"
        after = "" if self.start is None else f"-after-{self.start.images.name}-{self.start.arm}"
        return f"{self.images.name}-{self.student}-{self.arm}{by}{part}{after}-{self.seed}"

    @property
    def labels(self) -> Labels | None:
        if ARMS[self.arm].supervision == "labels":
            return None
        # the same for every length of training
        return Labels(images(self.images.data, self.images.per_class), self.by)

    @property
    def epochs(self) -> int:
        return round(self.images.epochs / self.parts)

    @property
    def passes(self) -> int:
        """Images that go through the student in training."""
        return self.epochs * self.images.count

    @property
    def training(self) -> Training:
        return Training(
            self.name, self.seed, Path(WORK, "runs", self.name), self.choices(self.epochs)
        )

    def choices(self, epochs: int) -> dict[str, Any]:
        arm, data = ARMS[self.arm], DATA[(self.start or self).images.data]  # its size and patches
        mixing = () if arm.mix == "none" else (MIXING,)
        often = 10 if self.images.count > FEW_IMAGES else 2  # where validating is dear
        return {
            "data": self.images.train,
            "val": self.images.val,
            "labels": () if self.labels is None else self.labels.store,
            "recipe": f"cifar10_{self.student}",
            "image_size": data.image_size,
            "supervision": arm.supervision,
            "mix": arm.mix,
            "epochs": epochs,
            "batch_size": self.images.batch_size,
            "scale": "none",
            "workers": 0,
            "cache": "device",
            "device_batch": self.images.batch_size,
            "weights": None if self.start is None else str(self.start.training.folder),
            "lr": None if self.start is None else FINE_TUNING,
            "settings": (f"validate_every={max(1, epochs // often)}", *mixing, *data.settings),
        }  # fmt: skip
