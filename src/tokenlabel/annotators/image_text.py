"""Labels without any classifier: an image-text model and the names of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenlabel.annotators.image_model import ImageAnnotator, Running
from tokenlabel.annotators.timm_classifier import weights_hash
from tokenlabel.data.inputs import Fit, Preprocessing
from tokenlabel.errors import InputError, nearest

__all__ = ["ImageTextAnnotator"]

DEFAULT_PROMPTS = ("a photo of a {}.", "a part of a {}.")


class PatchTextScores(nn.Module):
    """Images [B, 3, H, W] to scaled cosine similarities [B, h, w, C] of patches and class texts.

    Patch features are the values of the last attention layer, without its mixing of positions
    (Zhou et al., "Extract Free Dense Labels from CLIP", 2022, section 3.2): they keep their place,
    and lie in the space of the texts, which the layer's own outputs do not.
    """

    def __init__(self, model: Any, texts: Tensor) -> None:
        super().__init__()
        visual = model.visual
        if not hasattr(visual, "transformer") or getattr(visual, "attn_pool", None) is not None:
            raise InputError("this image-text model has no plain vision transformer: use a ViT")
        self.visual = visual
        self.texts = nn.Parameter(texts, requires_grad=False)  # [C, D], unit length
        self.scale = float(model.logit_scale.detach().exp())

    def forward(self, images: Tensor) -> Tensor:
        visual: Any = self.visual
        caught: list[Tensor] = []
        last = visual.transformer.resblocks[-1]
        handle = last.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        try:
            visual(images)
        finally:
            handle.remove()
        tokens = caught[0] if visual.transformer.batch_first else caught[0].transpose(0, 1)
        attention = last.attn
        width = attention.embed_dim
        values = F.linear(
            last.ln_1(tokens), attention.in_proj_weight[-width:], attention.in_proj_bias[-width:]
        )
        patches = visual.ln_post(attention.out_proj(values)[:, 1:])
        if visual.proj is not None:
            patches = patches @ visual.proj
        rows, cols = visual.grid_size
        scores = self.scale * F.normalize(patches, dim=-1) @ self.texts.T
        return scores.reshape(len(images), rows, cols, -1)


class ImageTextAnnotator(ImageAnnotator):
    """Scores every patch of an open_clip vision transformer against a text for each class.

    `model` and `weights` are open_clip's names (`open_clip.list_pretrained()`); without `weights`
    the model is random. A class's text is the mean of its prompts, "{}" standing for its name.
    """

    def __init__(
        self,
        model: str,
        class_names: Sequence[str],
        *,
        weights: str | None = None,
        prompts: Sequence[str] = DEFAULT_PROMPTS,
        image_size: int | None = None,
        fit: Fit = "squash",
        **running: Unpack[Running],
    ) -> None:
        network = _create(model, weights, image_size)
        settings = network.visual.preprocess_cfg
        size = network.visual.image_size
        with torch.inference_mode():
            texts = _text_features(network, model, class_names, prompts)
        rows, _ = network.visual.grid_size if hasattr(network.visual, "grid_size") else (1, 1)
        super().__init__(
            PatchTextScores(network, texts),
            len(class_names),
            Preprocessing(
                image_size=tuple(size),
                crop_pct=1.0,
                mean=tuple(settings["mean"]),
                std=tuple(settings["std"]),
                fit=fit,
                multiple=size[0] // rows,
                interpolation="bilinear" if settings["interpolation"] == "bilinear" else "bicubic",
            ),
            origin={
                "kind": "image-text model",
                "model": model,
                "weights": weights,
                "weights_sha256": weights_hash(network),
                "prompts": list(prompts),
            },
            **running,
        )


def _create(model: str, weights: str | None, image_size: int | None) -> Any:
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


def _text_features(
    network: Any, model: str, class_names: Sequence[str], prompts: Sequence[str]
) -> Tensor:
    """Unit vectors [C, D]: for each class the mean of its prompts' unit vectors."""
    import open_clip

    tokenizer = open_clip.get_tokenizer(model)
    features = []
    for name in class_names:
        words = name.replace("_", " ")
        texts = tokenizer([prompt.replace("{}", words) for prompt in prompts])
        encoded = network.encode_text(texts, normalize=True).mean(0)
        features.append(F.normalize(encoded, dim=0))
    return torch.stack(features)
