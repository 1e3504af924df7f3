"""All weights of a model as one vector, of which they are views."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FlatParameters:
    """One vector instead of many tensors: the optimiser, averages, clipping and checkpoints become single operations.

    Args:
        model: its parameters become views of the vector, and stay so as long as they are changed in place.

    Attributes:
        vector: all weights, in the order of `model.parameters()`, shape (n_parameters,).
    """

    def __init__(self, model: nn.Module) -> None:
        parameters = list(model.parameters())
        self.vector = nn.Parameter(torch.cat([parameter.detach().reshape(-1) for parameter in parameters]))
        for parameter, view in zip(parameters, self.views(self.vector.detach(), model), strict=True):
            parameter.data = view

    @torch.no_grad()
    def set(self, values: Tensor) -> None:
        """Overwrite all weights; values of shape (n_parameters,)."""
        self.vector.copy_(values)

    @staticmethod
    def views(vector: Tensor, model: nn.Module) -> list[Tensor]:
        """Cut a vector, such as a gradient, into tensors of the shapes of the model's parameters."""
        shapes = [parameter.shape for parameter in model.parameters()]
        parts = torch.split(vector, [shape.numel() for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
