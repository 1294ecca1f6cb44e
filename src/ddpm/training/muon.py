"""Muon (Jordan et al. 2024): the update of a weight is its momentum, made orthogonal."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from ddpm.training import sharding

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the odd polynomial that is applied to the singular values (Jordan et al. 2024)."""
ITERATIONS = 5
RMS_OF_ADAM = 0.2
"""Usual root mean square of an update of Adam, in learning rates (Liu et al. 2025, section 2.2)."""


class Muon(torch.optim.Optimizer):
    """Muon for convolutions, AdamW for all other weights (matrices of embeddings and times, biases, scales of norms).

    A convolution is a matrix `[out, in * height * width]`. Its update has the root mean square of an update of Adam, so
    that one learning rate and weight decay serve all weights (Liu et al. 2025, "Muon is Scalable for LLM Training").

    momentum: of the convolutions (Nesterov). betas, eps: of the other weights. Gradients that are None skip a weight.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        settings = {"momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        added = {"differentiable": False}  # by torch, when it loads a state
        super().__init__(params, {"lr": lr, **settings, **added})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            self._step_convolutions([weight for weight in weights if weight.ndim > 2], group)
            self._step_others([weight for weight in weights if weight.ndim <= 2], group)
        return loss

    def _step_convolutions(self, weights: list[nn.Parameter], group: dict[str, Any]) -> None:
        of_one_shape = defaultdict(list)
        for weight in weights:
            of_one_shape[weight.shape[0], weight[0].numel()].append(weight)
        for shape, alike in of_one_shape.items():
            matrices = torch.stack([self._ahead(weight, group["momentum"]).flatten(1) for weight in alike])
            updates = orthogonal(matrices) * (RMS_OF_ADAM * max(shape) ** 0.5)
            for weight, update in zip(alike, updates, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(sharding.sharded_like(update.view(weight.shape), weight), alpha=group["lr"])

    def _ahead(self, weight: nn.Parameter, decay: float) -> Tensor:
        """The momentum, with the gradient counted once more (Nesterov); complete on each process."""
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].lerp_(weight.grad, 1 - decay)
        return sharding.full_tensor(weight.grad.lerp(momentum, decay))

    def _step_others(self, weights: list[nn.Parameter], group: dict[str, Any]) -> None:
        states = [self.state[weight] for weight in weights]
        for weight, state in zip(weights, states, strict=True):
            if not state:
                state["step"] = torch.zeros(())
                state |= {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
        adamw(
            list[Tensor](weights),
            cast("list[Tensor]", [weight.grad for weight in weights]),
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            **{name: group[name] for name in ("lr", "weight_decay", "eps")},
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            amsgrad=False,
            maximize=False,
        )


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix with orthonormal rows or columns, approximately: singular values between 0.7 and 1.2.

    With matrix = U diag(s) V^T it returns U diag(f(s / |s|)) V^T, f being the polynomial applied `ITERATIONS` times
    (a Newton-Schulz iteration). matrix: `[..., m, n]`; one of zeros stays zero.
    """
    is_tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if is_tall else matrix
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if is_tall else x
