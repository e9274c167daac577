"""The Muon optimiser: momentum whose update is made orthogonal, for the matrices of hidden layers.

The quintic Newton-Schulz iteration and its coefficients are Keller Jordan's, https://kellerjordan.github.io/posts/muon/.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


class Muon:
    """Steps matrices of one shape together, as one batch: many small products cost more than one large one."""

    def __init__(self, parameters: Iterable[torch.Tensor], *, lr: float, momentum: float = 0.95) -> None:
        self.lr = lr
        self.momentum = momentum
        by_shape = defaultdict(list)
        for parameter in parameters:
            by_shape[tuple(parameter.shape)].append(parameter)
        self._groups = [
            (group, torch.zeros(len(group), *shape, device=group[0].device)) for shape, group in by_shape.items()
        ]

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradients that stand in the parameters."""
        for group, buffer in self._groups:
            gradient = torch.stack([parameter.grad for parameter in group])
            buffer.lerp_(gradient, 1 - self.momentum)
            update = orthogonalise(gradient.lerp(buffer, self.momentum))
            rows, columns = group[0].shape
            scale = -self.lr * max(1.0, rows / columns) ** 0.5
            for parameter, change in zip(group, update, strict=True):
                parameter.mul_(1 - self.lr * 0.01).add_(change, alpha=scale)


def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """(n, rows, columns) -> the same shape, every singular value near 1."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.transpose(1, 2) if tall else x).float()
