"""`TokenTarget`: soft targets of a batch of tokens, without ever holding [tokens, classes].

Shapes: B images, T = 1 + h * w targets an image (the class token's first), P palette entries an
image, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tokenlabel.mixing import Mix

__all__ = ["TokenTarget"]


@dataclass(frozen=True)
class TokenTarget:
    """A batch of class distributions in palette form.

    Class c of target t of image b has probability
    `residual[b, t] + sum of excess[b, t, p] over palette entries p with classes[b, p] == c`.
    So padding an image's palette with entries of excess 0 changes nothing, an entry may stand
    twice, and mixing two targets is concatenating their palettes.
    """

    classes: Tensor  # [B, P] int64
    excess: Tensor  # [B, T, P] float: probability above the residual
    residual: Tensor  # [B, T] float: probability of every class outside the palette
    mask: Tensor  # [B, T] bool: false where there is no target, and so no loss
    grid: tuple[int, int]  # (h, w)
    num_classes: int

    def __len__(self) -> int:
        return self.classes.shape[0]

    def first(self, count: int) -> TokenTarget:
        """The targets of the first `count` images."""
        return self._each(lambda tensor: tensor[:count])

    def dense(self) -> Tensor:
        """The distributions themselves, [B, T, C], class token first: the slow reference."""
        b, t, p = self.excess.shape
        full = self.residual[..., None].expand(b, t, self.num_classes).clone()
        return full.scatter_add_(2, self.classes[:, None].expand(b, t, p), self.excess)

    def class_target(self) -> Tensor:
        """The class token's distribution, dense: [B, C]."""
        full = self.residual[:, :1].expand(-1, self.num_classes).clone()
        return full.scatter_add_(1, self.classes, self.excess[:, 0])

    def weighted(self, weights: Tensor) -> TokenTarget:
        """Every target of image b times `weights[b]`, [B]: its losses are weighted so."""
        return replace(
            self,
            excess=self.excess * weights[:, None, None],
            residual=self.residual * weights[:, None],
        )

    def mixed(self, mix: Mix) -> TokenTarget:
        """The targets of blended images: own and partner's, each with its share of the token.

        A token is kept only where both images have a target. The class token mixes by `mix.lam`.
        """
        token_share = mix.share_on(*self.grid).float().flatten(1).expand(len(self), -1)
        other = torch.cat([(1 - mix.lam)[:, None], token_share], 1)  # [B, T]
        own = 1 - other
        partner = mix.partner
        return TokenTarget(
            classes=torch.cat([self.classes, self.classes[partner]], 1),
            excess=torch.cat(
                [self.excess * own[..., None], self.excess[partner] * other[..., None]], 2
            ),
            residual=self.residual * own + self.residual[partner] * other,
            mask=(self.mask | (own == 0)) & (self.mask[partner] | (other == 0)),
            grid=self.grid,
            num_classes=self.num_classes,
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TokenTarget:
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> TokenTarget:
        return self._each(Tensor.pin_memory)

    def _each(self, function: Callable[[Tensor], Tensor]) -> TokenTarget:
        return TokenTarget(
            function(self.classes),
            function(self.excess),
            function(self.residual),
            function(self.mask),
            self.grid,
            self.num_classes,
        )

    def take(self, index: Tensor) -> TokenTarget:
        """The targets of some images, [n] int64, in that order."""
        return self._each(lambda tensor: tensor[index])

    @classmethod
    def concatenate(cls, targets: Sequence[TokenTarget]) -> TokenTarget:
        """Join batches of one grid and class count, padding palettes to the longest."""
        first = targets[0]
        if any(t.grid != first.grid or t.num_classes != first.num_classes for t in targets):
            raise ValueError("targets of different grids or class counts cannot form one batch")
        longest = max(t.classes.shape[1] for t in targets)

        def pad(tensor: Tensor) -> Tensor:
            return torch.nn.functional.pad(tensor, (0, longest - tensor.shape[-1]))

        return cls(
            classes=torch.cat([pad(t.classes) for t in targets]),
            excess=torch.cat([pad(t.excess) for t in targets]),
            residual=torch.cat([t.residual for t in targets]),
            mask=torch.cat([t.mask for t in targets]),
            grid=first.grid,
            num_classes=first.num_classes,
        )
