"""A training run as data: every choice that can change its result, and nothing else.

A `Recipe` is plain, strict and torch-free. `tokenlabel.runs.recipe_file` reads and writes it
as YAML; `tokenlabel.recipes` holds one per published result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from tokenlabel.choices import Cache
from tokenlabel.options import STRICT, Count, NotNegative, Positive, Share
from tokenlabel.runs.schedule import BaseSchedule, Course, Schedule
from tokenlabel.supervision import AnyMethod, TokenLabels, better_rule

__all__ = [
    "About",
    "Augment",
    "BaseRecipe",
    "BaseSchedule",
    "Checkpoints",
    "Course",
    "Data",
    "Ema",
    "Engine",
    "Mixing",
    "Model",
    "Optimizer",
    "Recipe",
    "Schedule",
    "input_arguments",
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class About:
    """Where a recipe comes from and what to expect of it."""

    paper: str = ""
    command: str = ""
    hardware: str = ""
    accuracy: str = ""
    """The published number, with its data set and resolution."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Data:
    """The images and their label maps."""

    train: str = ""
    """Folder, tar, WebDataset shards or Hugging Face data set of the training images."""
    val: str | None = None
    """The same for validation; without it, a `holdout` of the training images, or nothing."""
    train_split: str | None = None
    """Which part of `train`, where it has parts: "train", say."""
    val_split: str | None = None
    holdout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Without `val`: the share of each class's training images that is held out for validation. None
    leaves the choice to `tokenlabel train`, and holds out nothing in a run that recorded it."""
    orientation: Literal["ignore", "apply"] = "ignore"
    """Whether EXIF orientations are applied; as the labels were made."""
    channels: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Which channels of the images the model sees, by number; None: all (see `Model.in_chans`)."""
    labels: str | tuple[str, ...] | None = None
    """Label store made by `tokenlabel annotate`; needed unless supervision is by labels alone. Of
    several, each teaches a token head of its own."""
    workers: Annotated[int, Field(ge=0)] = 4
    """Loader processes per rank; 0 loads in the training process. Never changes the result."""
    cache: Cache = "auto"
    """Keep decoded images: "ram" in the memory of each rank, "disk" in a file that ranks and later runs
    share; neither changes the result. "auto": "ram" if they are small, else "none".
    "device": images of one size and their label maps on the GPU, which makes views and targets itself,
    by crops and flips only."""

    @property
    def stores(self) -> tuple[str, ...]:
        """The locations of all label stores."""
        return (self.labels,) if isinstance(self.labels, str) else self.labels or ()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Augment:
    """Augmentation of the training images; its geometry reaches the label maps too."""

    scale: tuple[Positive, Positive] = (0.08, 1.0)
    """Area of the random crop, as shares of the image."""
    ratio: tuple[Positive, Positive] = (0.75, 1.3333333333333333)
    """Aspect ratio of the random crop."""
    hflip: Share = 0.5
    vflip: Share = 0.0
    policy: str | None = "rand-m9-mstd0.5-inc1"
    """RandAugment, AutoAugment, TrivialAugment, AugMix or 3-Augment in timm's notation."""
    color_jitter: NotNegative = 0.0
    """Strength of brightness, contrast and saturation jitter; as in timm it is used where there is no
    policy, and beside 3-Augment."""
    interpolation: Literal["bilinear", "bicubic", "random"] = "random"
    erasing: Share = 0.25
    """Probability of erasing a random rectangle."""
    erased_tokens_train: bool = True
    """Whether tokens under an erased rectangle keep their target, as published."""
    repeats: Count = 1
    """Repeated augmentation: how often an image appears in its batch, augmented anew each time."""
    crop_pct: Positive = 0.9
    """Validation: share of the image's shorter side that the center crop shows."""


def input_arguments(
    in_chans: int, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> dict[str, Any]:
    """timm's arguments for images of so many channels, normalized so; none for what is usual."""
    settings = {name: value for name, value in (("mean", mean), ("std", std)) if value is not None}
    return ({} if in_chans == 3 else {"in_chans": in_chans}) | (
        {"pretrained_cfg_overlay": settings} if settings else {}
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Model:
    """The student."""

    name: str = "lvvit_s"
    """A timm model, a folder that timm wrote, or `module:function` of your own that returns a model."""
    image_size: Count | tuple[Count, Count] = 224
    """Side, or (height, width), in pixels."""
    num_classes: Annotated[int, Field(ge=0)] | None = None
    """Class count; None takes it from the training images. 0: they have none, or none is to count."""
    multi_label: bool = False
    """Whether an image may have several classes, so that each has a probability of its own. Images
    with several classes switch it on."""
    token_classes: Count | tuple[Count | None, ...] | None = None
    """What the tokens name: visual words, so many; None: the classes. Taken from the label stores."""
    drop_path: Share = 0.0
    in_chans: Count = 3
    """Channels of the images: 3 are red, green and blue, 1 is gray."""
    mean: tuple[float, ...] | None = None
    """Of each channel of pixels in [0, 1], for normalization; None: the model's own."""
    std: tuple[Positive, ...] | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Further timm model arguments."""
    freeze: Literal["none", "backbone"] = "none"
    """"backbone": train the heads alone."""
    weights: str | None = None
    """Where to start from: a checkpoint file, a run's folder (its best checkpoint, averaged), or
    "pretrained" for timm's own weights."""

    @property
    def arguments(self) -> dict[str, Any]:
        """What a timm model is built with, besides its size and its classes."""
        return self.kwargs | input_arguments(self.in_chans, self.mean, self.std)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Mixing:
    """How the images of a batch are mixed."""

    kind: Literal["none", "mixtoken", "cutmix", "mixup", "cutmix-or-mixup"] = "mixtoken"
    alpha: Positive = 1.0
    """The mixed share is drawn from Beta(alpha, alpha)."""
    mixup_alpha: Positive = 0.8
    """alpha of the mixup half of "cutmix-or-mixup"."""
    probability: Share = 1.0
    """Probability that a step mixes at all."""
    per_sample: bool = False
    """One box for each pair of images, rather than one for the batch."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Optimizer:
    """The optimizer, by timm's names and rules."""

    name: str = "adamw"
    lr: Positive = 1.6e-3
    """Peak learning rate at `Schedule.batch_size` (see `--scale`)."""
    weight_decay: NotNegative = 0.05
    """None is applied to biases, norms, position embeddings and class tokens, unless `decay_all`."""
    decay_all: bool = False
    """Whether weight decay reaches those, too."""
    betas: tuple[Share, Share] | None = None
    eps: Positive | None = None
    momentum: Share = 0.9
    """Of optimizers that have one."""
    layer_decay: Positive | None = None
    """Factor of the learning rate from each layer to the one below it."""
    clip: Positive | None = None
    """Largest norm of the whole gradient."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Ema:
    """The moving average of the weights, which is validated beside them."""

    decay: Share | None = 0.99992
    """None keeps no average."""
    warmup: bool = False
    """Let the decay rise to its value, so that a short run's average leaves its start behind."""
    on_cpu: bool = False
    """Keep the average in CPU memory."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Engine:
    """How the machine computes; apart from rounding, none of it changes the result."""

    device: Literal["auto", "cpu"] = "auto"
    device_batch: Count | Literal["auto"] = 128
    """At most so many images at once on a device; a larger share of the batch is accumulated. "auto" is
    as many as a GPU has memory for, by trying, and 64 on a CPU."""
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    """"auto" is half precision on GPUs (bf16 where they have it), and on a CPU whichever of fp32 and
    bf16 makes the quicker step, by a short trial; a resumed run keeps what it began with."""
    compile: bool = False
    channels_last: bool = False
    """Memory layout of convolutions (the stem of a ViT)."""
    activation_checkpointing: bool = False
    sync_batchnorm: bool = False
    """Batch-norm statistics over all ranks (GPUs only)."""
    sharding: Literal["none", "fsdp"] = "none"
    """"fsdp" shards weights, gradients and optimizer state over the ranks."""
    token_head_chunk: Count | None = None
    """Apply the token head to so many images at a time: much less memory, about the same speed."""
    max_bad_steps: Count = 20
    """Stop after so many skipped (NaN or infinite) updates in a row."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Checkpoints:
    """What is kept, and how often."""

    every_minutes: NotNegative = 10.0
    """Besides at the end of each epoch, and when the scheduler asks the run to stop."""
    keep: Count = 2
    """How many of the newest checkpoints stay on disk, besides the best."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BaseRecipe:
    """What the engine reads of a recipe, whatever it trains."""

    name: str = "custom"
    seed: int = 0
    about: About = About()
    optimizer: Optimizer = Optimizer()
    schedule: BaseSchedule = BaseSchedule()
    ema: Ema = Ema()
    engine: Engine = Engine()
    checkpoints: Checkpoints = Checkpoints()
    trackers: tuple[str, ...] = ()
    """Any of accelerate's trackers that is installed: tensorboard, wandb, trackio, mlflow ..."""
    validate_every: Count = 1
    """Epochs between two validations; the end is always validated."""
    log_every: Count = 50
    """Updates between two lines of the metrics file."""

    @property
    def measure(self) -> str:
        """The validation's measure that decides which checkpoint is best."""
        return "top1"

    def recorded(self, measures: Mapping[str, float]) -> dict[str, Any]:  # noqa: ARG002
        """What a run keeps beside its best weights, by the validation's `measures` of these."""
        return {}

    @property
    def facts(self) -> dict[str, Any]:
        """What tells this run from others of its kind, for its results."""
        return {}

    @property
    def mixes(self) -> bool:
        """Whether the images of a pass are mixed with each other, so that it needs two."""
        return False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recipe(BaseRecipe):
    """One training run of a student."""

    data: Data = Data()
    augment: Augment = Augment()
    model: Model = Model()
    supervision: AnyMethod = TokenLabels()
    """What the student learns from: a method of `tokenlabel.supervision`, chosen by its `kind`."""
    mixing: Mixing = Mixing()
    schedule: Schedule = Schedule()

    @property
    def total_epochs(self) -> int:
        return self.schedule.epochs + self.schedule.cooldown_epochs

    @property
    def measure(self) -> str:
        """Without classes a validation finds the class of each image's nearest neighbors; where an
        image may have several, it measures the mean average precision."""
        if self.model.num_classes == 0:
            return "knn"
        return "map" if self.model.multi_label else "top1"

    def recorded(self, measures: Mapping[str, float]) -> dict[str, Any]:
        """The rule by which the student predicts from then on, where it has several."""
        rules = self.supervision.rules
        top1 = {rule: measures[name] for rule in rules if (name := f"{rule}_top1") in measures}
        return {"rule": better_rule(rules, top1)} if top1 else {}

    @property
    def facts(self) -> dict[str, Any]:
        return self.supervision.facts | {"mixing": self.mixing.kind}

    @property
    def mixes(self) -> bool:
        return self.mixing.kind != "none" and self.mixing.probability > 0
