"""A trained segmentation network as annotator: soft labels, on cells of a chosen size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic.dataclasses import dataclass

from tokenlabel.annotators.spec import Cells, File
from tokenlabel.choices import Arithmetic
from tokenlabel.options import STRICT, Count, Positive

if TYPE_CHECKING:
    import torch

    from tokenlabel.annotators.protocol import Pixels
    from tokenlabel.labels import LabelMap
    from tokenlabel.segmentation.inference import Segmenter
    from tokenlabel.segmentation.trained import TrainedSegmenter

__all__ = ["SegmenterAnnotator", "SegmenterSpec"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SegmenterSpec:
    """Label images with a segmentation network: a cell gets the mean probabilities of its pixels.

    A network that was trained with class weights predicts rare classes too often; the weights are
    divided out, so that labels are probabilities of the classes as they occur. Images are read as those
    of its training were: their channels, range of values and orientation.

    The classes are those of the network. `tokenlabel segment train --labels` trains on them for scenes
    without a mask; `tokenlabel train` uses them if the data has class folders of the same names.
    """

    kind: ClassVar[str] = "segmenter"

    model: File
    """Run folder of `tokenlabel segment train`; its best checkpoint is used."""
    grid: Cells = (64, 64)
    """Rows and columns of cells."""
    top_k: Count = 5
    """Classes kept per cell."""
    flip: bool = False
    """Average with the horizontally flipped image."""
    scales: tuple[Positive, ...] = (1.0,)
    """Average over the image at these multiples of its training size."""
    device: str = "auto"
    """cpu, cuda, mps, ...; auto uses the accelerator if there is one."""
    dtype: Arithmetic = "auto"
    """Precision of the network. auto: half precision on GPUs; on CPUs the faster of float32 and
    bfloat16, found by a short trial (float32 for fewer than 100 images)."""

    def build(
        self,
        class_names: Sequence[str],  # noqa: ARG002 (the network has classes of its own)
        device: torch.device | None = None,
    ) -> SegmenterAnnotator:
        from tokenlabel.models.device import resolve_device
        from tokenlabel.segmentation.trained import load_segmenter

        place = resolve_device(str(device or self.device))
        # labels are probabilities: a second network may weigh its classes itself
        trained = load_segmenter(self.model, ["test.logit_adjustment=1"])
        segmenter = trained.segmenter(place, flip=self.flip, scales=self.scales)
        return SegmenterAnnotator(trained, segmenter, self.grid, self.top_k, self.dtype)


class SegmenterAnnotator:
    """Labels cells with the mean class probabilities of their pixels."""

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        trained: TrainedSegmenter,
        segmenter: Segmenter,
        grid: tuple[int, int],
        top_k: int,
        dtype: Arithmetic,
    ) -> None:
        self.class_names = trained.classes.names
        self.num_classes = len(trained.classes)
        self.rules, self.channels = trained.rules, trained.rules.channels
        self._trained, self._segmenter = trained, segmenter
        self.grid, self.top_k = grid, min(top_k, self.num_classes)
        self._dtype = dtype

    @property
    def description(self) -> dict[str, Any]:
        from tokenlabel.annotators.image_model import weights_hash
        from tokenlabel.models.arithmetic import name_of

        shown, dtype = self._segmenter.inference, self._segmenter.dtype
        return {
            "kind": "segmenter",
            "model": self._trained.recipe.model.backbone,
            "weights_sha256": weights_hash(self._trained.model),
            "grid": list(self.grid),
            "top_k": self.top_k,
            "short_side": shown.short_side,
            "window": shown.window,
            "stride": shown.stride,
            "scales": list(shown.scales),
            "flip": shown.flip,
            # nothing of float32, as before there was a choice
            **({"dtype": name_of(dtype)} if name_of(dtype) != "float32" else {}),
        }

    def settle_arithmetic(self, wanted: Arithmetic, images: int) -> None:
        own = self._dtype
        self._segmenter = self._segmenter.in_arithmetic(wanted if own == "auto" else own, images)

    def batch_size(self) -> int:
        return 8

    def prepare(self, key: str, pixels: Pixels, orientation: int = 1) -> Pixels:  # noqa: ARG002
        return pixels

    def annotate(self, batch: Sequence[Pixels]) -> list[LabelMap]:
        from tokenlabel.geometry import Box
        from tokenlabel.labels import LabelMap

        maps = []
        for pixels in batch:
            probabilities = self._segmenter.cells(pixels, self.grid)
            maps.append(
                LabelMap.from_logits(probabilities.clamp(min=1e-8).log(), self.top_k, Box())
            )
        return maps
