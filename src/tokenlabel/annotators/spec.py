"""What all specs of annotators share. No torch is imported, for the command line reads specs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

from pydantic import Field
from pydantic.dataclasses import dataclass

from tokenlabel.choices import Arithmetic, Fit, ModelArguments
from tokenlabel.errors import InputError
from tokenlabel.options import STRICT, Count, Positive

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tokenlabel.annotators.image_model import Running
    from tokenlabel.annotators.protocol import Annotator

__all__ = ["AnnotatorSpec", "Cells", "File", "Network", "timm_network"]

File = Annotated[Path, Field(strict=False)]  # text is a path too
Cells = tuple[Count, Count]  # rows and columns

_RANDOM_WEIGHTS = (
    "WARNING: an annotator with random weights makes noise, not labels: give --checkpoint FILE, or teach"
    " an annotator first (`tokenlabel teach`)"
)


class AnnotatorSpec(Protocol):
    """One kind of annotator: a strict dataclass of its options, which builds it."""

    kind: ClassVar[str]

    def build(
        self, class_names: Sequence[str], device: torch.device | None = None
    ) -> Annotator[Any]:
        """The annotator of a data set with `class_names`; `device` replaces the spec's own.

        Raises InputError where the options do not go together or something is missing.
        """
        ...


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Network:
    """Options of annotators that are networks."""

    image_size: Count | None = None
    """Input size in pixels (default: the test size of the model)."""
    size_factor: Positive = 1.0
    """Multiply the test size by this factor, for finer maps: 1.5, for example."""
    fit: Fit = "squash"
    """squash: resize the whole image to the input shape. keep: keep the aspect ratio. crop: center crop,
    as in the model's own evaluation; tokens outside the crop get no label."""
    top_k: Count = 5
    """Classes kept per cell."""
    flip: bool = False
    """Average with the horizontally flipped image."""
    scales: tuple[Positive, ...] = (1.0,)
    """Average over the image at these multiples of the input size."""
    window: Count | None = None
    """Slide a window of this many pixels over the input, for networks of a fixed input size."""
    device: str = "auto"
    """cpu, cuda, mps, ...; auto uses the accelerator if there is one."""
    dtype: Arithmetic = "auto"
    """Precision of the network. auto: half precision on GPUs; on CPUs the faster of float32 and
    bfloat16, found by a short trial (float32 online, and for fewer than 100 images)."""
    compile: bool = False
    """Use torch.compile; worthwhile for large data sets."""
    views_at_once: Count | None = None
    """Online: label this many views of a batch at a time (default: all)."""

    def input_size(self, test_size: tuple[int, int], multiple: int) -> tuple[int, int]:
        """(height, width) in pixels of the input of a model whose own is `test_size`."""
        if self.image_size is not None:
            if self.size_factor != 1:
                raise InputError("give an image size or a size factor, not both")
            return self.image_size, self.image_size
        if self.size_factor == 1:
            return test_size
        from tokenlabel.data.inputs import to_multiple

        height, width = (to_multiple(side * self.size_factor, multiple) for side in test_size)
        return height, width

    def running(self, device: torch.device | None) -> Running:
        """The same as keywords of `ImageAnnotator`, on this machine."""
        import torch

        from tokenlabel.annotators.image_model import Views
        from tokenlabel.models.device import resolve_device

        return {
            "top_k": self.top_k,
            "views": Views(flip=self.flip, scales=self.scales, window=self.window),
            "device": resolve_device(str(device or self.device)),
            "dtype": None if self.dtype == "auto" else getattr(torch, self.dtype),
            "compile": self.compile,
            "views_at_once": self.views_at_once,
        }


def timm_network(
    model: str, arguments: ModelArguments, *, pretrained: bool, checkpoint: Path | None
) -> tuple[nn.Module, tuple[str, ...]]:
    """A timm model with its weights, those of `checkpoint` before pretrained ones, and notes on it: a
    warning where it has neither. Raises InputError as `build_model` does."""
    from tokenlabel.models import build_model
    from tokenlabel.text import argument_values

    network = build_model(
        model,
        pretrained=pretrained and checkpoint is None,
        checkpoint=checkpoint,
        **argument_values(arguments),
    )
    return network, () if pretrained or checkpoint is not None else (_RANDOM_WEIGHTS,)
