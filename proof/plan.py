"""What is run for the proof: data sets, annotators, label stores, students, arms, in their order.

Everything is a command of the package (`Run.command`, `Annotator.teach`, `Labels.annotate`): what is
executed is what a reader can type. The stages depend on what is known already: the strongest
baseline and the better mixing of a student are chosen by the first seed, and get the further seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenlabel.compare.training import Training

WORK = "runs/proof"
RESULTS = Path("proof/results")
SEEDS = (0, 1, 2)
CARRIED_ON = ("cifar10", "lvvit")  # the data and the student that `camvid.py` goes on with
SETTLED = 1.0  # points: a third seed is trained where a difference is smaller
FULL_EPOCHS = 20
LONG_EPOCHS = 40
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
    "tokens": Arm("token labels", "token-labels", "none"),
    "tokens-mixtoken": Arm("token labels, MixToken", "token-labels", "mixtoken"),
}
BASELINES = ("labels", "labels-cutmix")
OURS = ("tokens", "tokens-mixtoken")
FINE_TUNING = 2e-3  # learning rate of students that begin with weights: a third of the recipes'
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
        start = ["--weights", PRETRAINED] if self.pretrained else ["--no-pretrained"]
        batch_size = self.batch_size or images.batch_size
        data = ["--data", images.train, "--batch-size", str(batch_size)]
        epochs = max(self.epochs, FEWEST_SEEN // images.count)
        options = [*start, *self.options, "--epochs", str(epochs)]
        return ["teach", *data, "--output", output, *options]


PRETRAINED = f"{WORK}/pretrained.safetensors"  # a link to the file that was given
PRETRAINED_MODEL = "tf_efficientnet_lite0"


SMALL = ("resnet10t", "--model-kwargs", "output_stride", "8", "channels", "[64,128,256,256]")
LARGE = ("resnet18", "--model-kwargs", "output_stride", "8")  # 11 M parameters
# its first blocks keep most of the resolution of images that are enlarged three- or fourfold
STRONG = ("resnet18", "--model-kwargs", "output_stride", "16")


def taught(
    title: str,
    *options: str,
    model: Sequence[str] = SMALL,
    side: int = 48,
    epochs: int = 16,
    batch_size: int | None = None,
    shown: int = 64,
) -> Annotator:
    """A ResNet, by default of 2.4 M parameters that keeps an eighth of its input's resolution."""
    return Annotator(
        title,
        (
            "--model", *model, "--image-size", str(side), "--opt", "muon", "--lr", "6e-3",
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
    "short": taught("taught for 4 epochs", epochs=4),
    "long": taught("taught for 32 epochs", epochs=32),
    "large": taught("ResNet-18, taught on the same images", model=LARGE, side=64, epochs=24),
    "strong": taught(
        "ResNet-18 at 96 pixels, taught on the same images",
        model=STRONG, side=96, epochs=20, batch_size=512, shown=128,
    ),
    "pretrained": Annotator("pretrained on ImageNet, as it is", pretrained=True, shown=256),
    "finetuned": Annotator(
        "pretrained on ImageNet, fine-tuned on the same images",
        (
            "--model", PRETRAINED_MODEL, "--image-size", "128", "--lr", "5e-4",
            "--holdout", "0.05", "--cache", "device",
        ),
        pretrained=True,
        epochs=8,
        shown=256,
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
            model = [PRETRAINED_MODEL, "--checkpoint", PRETRAINED]
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


Scores = Callable[[Run], float | None]  # of runs that have a record


def stages(cifar: Images, tiny: Images | None, score: Scores) -> Iterator[Sequence[Run]]:
    """The runs in their order, those that tell most first. Each stage is asked for when the ones
    before are done: `score` then knows of their runs."""
    yield list(_first(cifar, tiny))
    for seed in SEEDS[1:]:
        for subset, by in ((cifar, "taught"), (tiny, "finetuned")):
            if subset is not None:
                yield list(_again(subset, by, seed, score))


def _first(cifar: Images, tiny: Images | None) -> Iterator[Run]:
    """Every arm with one seed."""
    first = ("lvvit", "vit", "resnet")
    for arm in ("labels", "tokens"):
        yield from (Run(cifar, student, arm, 0) for student in first)
    if tiny is not None:
        for choice in (("labels", 0), ("tokens", 0, "finetuned"), ("tokens", 0, "pretrained")):
            yield from (Run(tiny, student, *choice) for student in DATA[tiny.data].students)
    for arm in ("labels-cutmix", "tokens-mixtoken", "distillation"):
        yield from (Run(cifar, student, arm, 0) for student in first)
    yield from (Run(cifar, "swin", arm, 0) for arm in ARMS)
    if tiny is not None:
        rest = (("labels-cutmix", 0), ("tokens-mixtoken", 0, "finetuned"),
                ("distillation", 0, "finetuned"), ("tokens", 0, "taught"),
                ("tokens-mixtoken", 0, "taught"))  # fmt: skip
        for choice in rest:
            yield from (Run(tiny, student, *choice) for student in DATA[tiny.data].students)
    yield from (Run(cifar, s, "tokens", 0, parts=3) for s in ("vit", "lvvit", "swin"))
    yield from (Run(cifar, student, "tokens", 0, "large") for student in ("lvvit", "resnet"))


def _again(of: Images, by: str, seed: int, score: Scores) -> Iterator[Run]:
    """The strongest baseline, distillation and the better of ours with a further seed; a third one
    only where the differences so far leave it open, or `camvid.py` goes on with the students."""
    for student in DATA[of.data].students:
        base = best(of, student, BASELINES, by, score)
        ours = best(of, student, OURS, by, score)
        before = [
            (score(Run(of, student, ours, s, by)), score(Run(of, student, base, s, by)))
            for s in SEEDS[:seed]
        ]
        gaps = [a - b for a, b in before if a is not None and b is not None]
        settled = seed > 1 and gaps and abs(sum(gaps) / len(gaps)) >= SETTLED
        if settled and (of.data, student) != CARRIED_ON:
            continue
        for arm in (base, ours, "distillation"):
            yield Run(of, student, arm, seed, by)


def best(of: Images, student: str, arms: Sequence[str], by: str, score: Scores) -> str:
    """The arm that is ahead at the first seed."""
    scores = {arm: score(Run(of, student, arm, SEEDS[0], by)) for arm in arms}
    return max(arms, key=lambda arm: -1.0 if scores[arm] is None else scores[arm] or 0.0)


def long_schedule(of: Images) -> list[Run]:
    """Every student for longer, with the labels of the most accurate annotator."""
    return [
        Run(of, student, arm, 0, "strong")
        for arm in ("labels-cutmix", "tokens-mixtoken", "labels", "tokens", "distillation")
        for student in STUDENTS
    ]


def annotator_table(of: Images) -> list[Run]:
    """Annotators of other accuracy and honesty, on two students, beside ground truth."""
    students = ("lvvit", "resnet")
    kinds = ("taught", "folds-2", "folds-5", "mse", "early", "short", "long")
    return [Run(of, s, arm, 0) for arm in BASELINES for s in students] + [
        Run(of, s, "tokens", 0, by) for by in kinds for s in students
    ]


def small_data(data: str) -> list[Run]:
    """500 and 50 images a class, the annotator taught on the same few, also in folds."""
    choices = (
        *((arm, 0) for arm in (*BASELINES, "distillation", "tokens", "tokens-mixtoken")),
        ("tokens", 0, "folds-2"),
    )
    return [
        Run(images(data, count), student, *choice)
        for count in (500, 50)
        for student in ("lvvit", "vit", "resnet")
        for choice in choices
    ]


def carry_over() -> list[Run]:
    """Students fine-tuned on the other data set, at their own image size."""
    ways = (
        (("cifar10", 5000), "taught", ("tinyimagenet100", 100)),
        (("cifar10", 1000), "taught", ("tinyimagenet100", 100)),
        (("tinyimagenet100", 100), "finetuned", ("cifar10", 1000)),
    )
    return [
        Run(Images(*after, 10), s, "labels", seed, start=Run(images(*before), s, arm, seed, by))
        for before, by, after in ways
        for s in ("lvvit", "vit")
        for arm in (*BASELINES, *OURS)
        for seed in SEEDS
    ]


LONG = Images("cifar10", 5000, LONG_EPOCHS)
SMALL_TABLES = {
    "small-data": small_data("cifar10"),
    "carry-over": carry_over(),
}
TABLES = {  # what is run besides the stages; the first two are headlines of the report
    "long": long_schedule(LONG),
    "annotators": annotator_table(images("cifar10", 1000)),
    **SMALL_TABLES,
}
