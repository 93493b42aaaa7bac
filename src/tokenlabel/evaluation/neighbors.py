"""k-nearest neighbors: what features tell of classes without any training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["knn_accuracy"]

_NEIGHBORS, _TEMPERATURE = 20, 0.07  # Wu et al. 2018, and all self-supervised work since
_AT_ONCE = 1024


def knn_accuracy(features: Tensor, labels: Tensor) -> float:
    """Share of images, in [0, 1], whose class the 20 most similar others name: leave one out.

    Features [N, D] are compared by cosine, and neighbors vote for their `labels` [N] with the weight
    exp(cosine / 0.07) (Wu et al. 2018, arXiv 1805.01978). Takes N * N products.
    """
    features = F.normalize(features.float(), dim=1)
    neighbors = min(_NEIGHBORS, len(features) - 1)
    if neighbors < 1:
        return 0.0
    classes, correct = int(labels.max()) + 1, 0
    for start in range(0, len(features), _AT_ONCE):
        rows = torch.arange(start, min(start + _AT_ONCE, len(features)))
        similar = features[rows] @ features.T
        similar[rows - start, rows] = -torch.inf
        values, nearest = similar.topk(neighbors)
        votes = torch.zeros(len(rows), classes)
        votes.scatter_add_(1, labels[nearest], (values / _TEMPERATURE).exp())
        correct += int((votes.argmax(1) == labels[rows]).sum())
    return correct / len(features)
