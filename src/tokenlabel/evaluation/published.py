"""Published accuracies, to stand beside measured ones."""

from __future__ import annotations

__all__ = ["published_top1"]

# "All Tokens Matter" (arXiv 2104.10858), ImageNet validation, class and token heads fused, percent
_IMAGENET_TOP1 = {
    ("lvvit_t", 224): 79.1,
    ("lvvit_s", 224): 83.3,
    ("lvvit_s", 384): 84.4,
    ("lvvit_m", 224): 84.0,
    ("lvvit_m", 384): 85.4,
    ("lvvit_m", 448): 85.5,
    ("lvvit_l", 288): 85.3,
    ("lvvit_l", 448): 86.2,
    ("lvvit_l", 512): 86.4,
}


def published_top1(model: str, image_size: tuple[int, int]) -> float | None:
    """Published ImageNet top-1 in percent of a model's weights, or None where none is known."""
    height, width = image_size
    return _IMAGENET_TOP1.get((model, height)) if height == width else None
