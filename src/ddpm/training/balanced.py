"""The gradients of a term whose weight follows from the gradients of the whole step."""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed, nn

from ddpm.base.types import BalancedTerm


class BalancedGradients:
    """Those of a `BalancedTerm` over the micro-batches and processes of a step, beside those of the rest of the loss.

    So the weight is the same for any number of micro-batches and processes. The authors take it from each process's own
    batch. It costs one more backward pass through the network.
    """

    def __init__(self, network: nn.Module) -> None:
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.term: BalancedTerm | None = None
        self.sums: list[Tensor] = []

    def add(self, term: BalancedTerm, loss: Tensor) -> None:
        """loss: the mean of the term's values in a micro-batch. Its graph is still needed by the other terms."""
        self.term = term
        gradients = torch.autograd.grad(loss, self.parameters, retain_graph=True, materialize_grads=True)
        pairs = zip(self.sums, gradients, strict=True)
        self.sums = [sum_ + gradient for sum_, gradient in pairs] if self.sums else list(gradients)

    def merge(self, num_processes: int, scale: float) -> Tensor:
        """Add them, weighted, to the gradients of the other terms, which are averaged already. Returns the weight.

        scale: of both losses.
        """
        assert self.term is not None
        assert self.term.at.grad is not None
        average_over_processes(self.sums, num_processes)
        own = next(own for p, own in zip(self.parameters, self.sums, strict=True) if p is self.term.at)
        weight = self.term.weight(self.term.at.grad, own, scale)
        for parameter, gradient in zip(self.parameters, self.sums, strict=True):
            weighted = gradient * weight
            parameter.grad = weighted if parameter.grad is None else parameter.grad + weighted
        return weight


def average_over_processes(gradients: Sequence[Tensor], num: int) -> None:
    """In place and in one transfer. To be called on all processes."""
    if num == 1 or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    pieces = flat.div_(num).split([gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))
