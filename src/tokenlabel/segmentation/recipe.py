"""A segmentation run as data: what `tokenlabel.runs.recipe` is to classification."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from tokenlabel.errors import InputError
from tokenlabel.options import STRICT, Count, NotNegative, Positive, Share
from tokenlabel.runs.recipe import (
    BaseRecipe,
    BaseSchedule,
    Course,
    Ema,
    Engine,
    Optimizer,
    input_arguments,
)

__all__ = [
    "HeadKind",
    "Layout",
    "SegmentationAugment",
    "SegmentationData",
    "SegmentationLoss",
    "SegmentationModelChoice",
    "SegmentationRecipe",
    "SegmentationTest",
    "UpdateSchedule",
]

Layout = Literal["ade20k", "cityscapes", "folder"]
HeadKind = Literal["upernet", "fcn", "linear", "linear4"]
Updates = Annotated[int, Field(ge=0)]
Index = Annotated[int, Field(ge=0, le=65535)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SegmentationData:
    """The images and their masks (layouts: see `tokenlabel.segmentation.pairs.open_pairs`)."""

    root: str = ""
    """Folder of the data set."""
    layout: Layout | None = None
    """None finds it by the folders that are there."""
    train_split: str = "training"
    val_split: str | None = "validation"
    """None validates nothing."""
    classes: str | None = None
    """File of the class names; None takes the one in `root`."""
    ignore_index: Index | None = None
    """The mask value of unlabeled pixels; None takes the layout's: 0 for ADE20K, else 255."""
    orientation: Literal["ignore", "apply"] = "ignore"
    """Whether EXIF orientations are applied, to images and masks alike."""
    channels: tuple[Index, ...] | None = None
    """Which channels of the images the model sees, by number; None: all."""
    labels: str | None = None
    """Label store made by `tokenlabel annotate`: soft labels of training scenes without a mask."""
    mask_repeats: Count = 1
    """How often a pass over the images shows each scene with a mask, where `labels` has others: few
    masks would otherwise be lost among many soft labels."""
    workers: Annotated[int, Field(ge=0)] = 4
    """Loader processes per rank. Never changes the result."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SegmentationAugment:
    """How training samples are drawn (see `tokenlabel.segmentation.augment.PairAugmentation`)."""

    crop: tuple[Count, Count] = (512, 512)
    """(height, width) in pixels."""
    scale: tuple[Positive, Positive] = (0.5, 2.0)
    """Random factor on the size that `test` prescribes."""
    largest_share: Share = 0.75
    """A crop in which one class fills more is drawn again."""
    hflip: Share = 0.5
    color: bool = True
    """Photometric distortion."""
    views: Count | None = None
    """How many views are drawn of each image, and then shown in turn; None draws new ones without
    end. Of a frozen backbone the features of these views are kept in memory."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SegmentationModelChoice:
    """Backbone and head."""

    backbone: str = "lvvit_s"
    """Any timm model name with intermediate maps."""
    weights: str | None = None
    """Where to start from: a checkpoint file or the folder of a run, of a classifier or student, or
    "pretrained" for timm's own weights."""
    head: HeadKind = "upernet"
    """Linear ones are a batch norm and a 1x1 convolution on the last map, or on four."""
    freeze: bool = False
    """Let the backbone stay as it is. Where `augment.views` limits the views, it sees each once."""
    channels: Count = 256
    """Width of the heads."""
    dropout: Share = 0.1
    drop_path: Share = 0.0
    in_chans: Count = 3
    """Channels of the images, and their mean and std, as in `tokenlabel.runs.recipe.Model`."""
    mean: tuple[float, ...] | None = None
    std: tuple[Positive, ...] | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Further timm arguments of the backbone."""

    @property
    def arguments(self) -> dict[str, Any]:
        """What the backbone is built with, besides its size."""
        return self.kwargs | input_arguments(self.in_chans, self.mean, self.std)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SegmentationLoss:
    """Cross-entropy of both heads."""

    auxiliary_weight: NotNegative = 0.4
    soft_weight: NotNegative = 1.0
    """What a pixel of `data.labels` counts, beside one of a mask."""
    soft_threshold: Share = 0.0
    """Regions whose best class is less probable than this have no soft label; 0 keeps all."""
    class_balance: Share = 0.0
    """Weigh pixels by class frequency to this negative power: 0 not at all, 1 all classes alike."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class UpdateSchedule(BaseSchedule):
    """A length in updates."""

    unit: ClassVar[str] = "updates"

    batch_size: Count = 16
    updates: Count = 160_000
    warmup_updates: Updates = 1500
    warmup_lr: NotNegative = 6e-11
    min_lr: NotNegative = 0.0
    decay: Literal["cosine", "constant", "poly"] = "poly"

    def course(self, updates_per_epoch: int) -> Course:  # noqa: ARG002
        """Raises InputError where the warm-up leaves nothing to train at the full rate."""
        if self.warmup_updates >= self.updates:
            raise InputError(
                f"schedule.warmup_updates = {self.warmup_updates} leaves nothing of"
                f" {self.updates} updates to train at the full rate"
            )
        return Course(self.warmup_updates, self.updates, 0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SegmentationTest:
    """How images are shown when they are segmented (see `tokenlabel.segmentation.inference`)."""

    short_side: Count | None = 512
    """Pixels to which the shorter side is scaled, in training before `augment.scale`; None: as is."""
    window: Count | None = 512
    """Side of the sliding window; None shows the whole image at once."""
    stride: Count = 341
    logit_adjustment: Share = 0.0
    """Power of the training's class weights (`loss.class_balance`) by which probabilities are divided:
    0 leaves them, 1 takes the weights out again. `annotate segmenter` always takes them out."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SegmentationRecipe(BaseRecipe):
    """One segmentation run."""

    data: SegmentationData = SegmentationData()
    augment: SegmentationAugment = SegmentationAugment()
    model: SegmentationModelChoice = SegmentationModelChoice()
    loss: SegmentationLoss = SegmentationLoss()
    optimizer: Optimizer = Optimizer(lr=6e-5, weight_decay=0.01)
    schedule: UpdateSchedule = UpdateSchedule()
    test: SegmentationTest = SegmentationTest()
    ema: Ema = Ema(decay=None)
    engine: Engine = Engine(device_batch=16)
    validate_every: Count = 6
    """Passes over the images between two validations; the end is always validated."""

    @property
    def measure(self) -> str:
        return "miou"

    @property
    def facts(self) -> dict[str, Any]:
        return {"backbone": self.model.backbone, "head": self.model.head}
