"""Turns of a training step: each trains one network with its loss and its optimizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from ddpm.base.types import LossTerms
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.losses import AdversarialLoss, Example, Loss, TurnLoss
from ddpm.training.optimizer import MakeOptimizer

NETWORK, ADVERSARY = "network", "adversary"
"""Names of the turns of the model's own network, whose optimizer steps are those of the run, and of its adversary."""


@dataclass(frozen=True)
class Turn:
    """One turn of a training step. It trains `network`, while all other networks are frozen."""

    name: str
    network: nn.Module
    loss: TurnLoss
    make_optimizer: MakeOptimizer

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())


def describe_sizes(turns: Sequence[Turn]) -> str:
    """The parameters of each network, the model's own first: "1,062,564 and 648,833 (adversary)"."""
    own = [f"{turn.num_parameters:,}" for turn in turns if turn.name == NETWORK]
    return " and ".join(own + [f"{turn.num_parameters:,} ({turn.name})" for turn in turns if turn.name != NETWORK])


def turns_of(
    loss: Loss | AdversarialLoss, networks: Mapping[str, nn.Module], optimizers: Mapping[str, MakeOptimizer]
) -> tuple[Turn, ...]:
    """The turns of a loss, in its order. networks, optimizers: by name of the turn."""
    losses = loss.turns if hasattr(loss, "turns") else {NETWORK: PlainTurn(loss)}
    return tuple(Turn(name, networks[name], each, optimizers[name]) for name, each in losses.items())


@dataclass(frozen=True)
class PlainTurn:
    """The only turn of a loss that trains one network; a class, so that trainer.strategy=ddp_spawn can pickle it."""

    loss: Loss

    def __call__(self, denoiser: NetworkDenoiser, example: Example) -> LossTerms:
        return self.loss(denoiser, example.x0, example.cond, example.draws)
