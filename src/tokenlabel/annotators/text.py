"""Labels without any classifier: an image-text model and the names of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic.dataclasses import dataclass

from tokenlabel.annotators.spec import Network
from tokenlabel.errors import InputError, nearest
from tokenlabel.options import STRICT

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tokenlabel.annotators.image_model import ImageAnnotator

__all__ = ["TextSpec", "text_annotator"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TextSpec:
    """Label images with an image-text model of open_clip; only the class names are needed."""

    kind: ClassVar[str] = "text"

    model: str
    """open_clip name of a model with a vision transformer: ViT-B-16, ViT-B-16-SigLIP."""
    weights: str | None = None
    """open_clip name of the weights: laion2b_s34b_b88k, webli. Without it, weights are random."""
    prompts: tuple[str, ...] = ("a photo of a {}.", "a part of a {}.")
    """Prompt templates, averaged for each class; {} is the class name."""
    network: Network = field(default_factory=Network)

    def build(
        self, class_names: Sequence[str], device: torch.device | None = None
    ) -> ImageAnnotator:
        model = _create(self.model, self.weights)
        return text_annotator(model, _tokenizer(self.model), self, class_names, device)


def text_annotator(
    model: Any,
    tokenizer: Any,
    spec: TextSpec,
    class_names: Sequence[str],
    device: torch.device | None = None,
) -> ImageAnnotator:
    """The annotator of an open_clip model that is built already."""
    from tokenlabel.annotators.image_model import ImageAnnotator, weights_hash
    from tokenlabel.annotators.patch_text import PatchTextScores, patch_grid, tower_inputs

    own = tower_inputs(model.visual)
    multiple = own.image_size[0] // patch_grid(model.visual, own.image_size)[0]
    size = spec.network.input_size(own.image_size, multiple)
    side = spec.network.window
    model = _resized(model, spec, (side, side) if side else size)
    return ImageAnnotator(
        PatchTextScores(model, _text_features(model, tokenizer, class_names, spec.prompts)),
        len(class_names),
        replace(own, image_size=size, fit=spec.network.fit, multiple=multiple),
        class_names=class_names,
        origin={
            "kind": "image-text model",
            "model": spec.model,
            "weights": spec.weights,
            "weights_sha256": weights_hash(model),
            "prompts": list(spec.prompts),
        },
        **spec.network.running(device),
    )


def _create(model: str, weights: str | None, image_size: tuple[int, int] | None = None) -> Any:
    try:
        import open_clip
    except ImportError:
        raise InputError("image-text models need open_clip: install tokenlabel[text]") from None
    known = open_clip.list_models()
    if ":" not in model and model not in known:
        raise InputError(f"open_clip has no model {model!r}{nearest(model, known)}")
    try:
        return open_clip.create_model(model, pretrained=weights, force_image_size=image_size).eval()
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(f"cannot create {model}: {str(error).splitlines()[0]}") from error


def _tokenizer(model: str) -> Any:
    import open_clip

    try:
        return open_clip.get_tokenizer(model)
    except (ImportError, RuntimeError, OSError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"cannot get the tokenizer of {model}: {reason}; it is downloaded where there is a"
            " network, and SigLIP's needs the package transformers"
        ) from error


def _resized(model: Any, spec: TextSpec, size: tuple[int, int]) -> Any:
    """The model for inputs of `size` = (height, width) pixels."""
    if size == tuple(model.visual.image_size):
        return model
    trunk = getattr(model.visual, "trunk", None)
    if trunk is None:
        return _create(spec.model, spec.weights, size)
    if hasattr(trunk, "set_input_size"):
        trunk.set_input_size(img_size=size)
    return model


def _text_features(
    network: Any, tokenizer: Any, class_names: Sequence[str], prompts: Sequence[str]
) -> Tensor:
    """Unit vectors [C, D]: for each class the mean of its prompts' unit vectors."""
    import torch
    from torch.nn import functional as F

    features = []
    with torch.inference_mode():
        for name in class_names:
            words = name.replace("_", " ")
            texts = tokenizer([prompt.replace("{}", words) for prompt in prompts])
            encoded = network.encode_text(texts, normalize=True).mean(0)
            features.append(F.normalize(encoded, dim=0))
    return torch.stack(features)
