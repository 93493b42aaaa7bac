"""Published accuracies, to stand beside measured ones."""

from __future__ import annotations

__all__ = ["published_top1"]

# (model, side of the image in pixels, test crop): percent. "All Tokens Matter" (arXiv 2104.10858),
# ImageNet validation, class and token heads fused; crops of the released models' configurations.
_IMAGENET_TOP1 = {
    ("lvvit_t", 224, 0.9): 79.1,
    ("lvvit_s", 224, 0.9): 83.3,
    ("lvvit_s", 384, 0.9): 84.4,
    ("lvvit_m", 224, 1.0): 84.0,
    ("lvvit_m", 384, 1.0): 85.4,
    ("lvvit_m", 448, 1.0): 85.5,
    ("lvvit_l", 288, 1.0): 85.3,
    ("lvvit_l", 448, 1.0): 86.2,
    ("lvvit_l", 512, 1.0): 86.4,
}


def published_top1(model: str, image_size: tuple[int, int], crop_pct: float) -> float | None:
    """Published ImageNet top-1 in percent; None unless model, size and test crop are those published."""
    height, width = image_size
    return _IMAGENET_TOP1.get((model, height, crop_pct)) if height == width else None
