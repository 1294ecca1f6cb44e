"""Exponential moving averages of a network's weights, with one or several decays."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ddpm.base import check

Floats = float | Sequence[float]


class WeightAverages(nn.Module):
    """avg <- decay * avg + (1 - decay) * weights, once after each optimizer step.

    decay: one or several in [0, 1). warmup: use min(decay, (1 + n) / (10 + n)) at the n-th update, to forget the
    initial weights quickly (as in the code of Ho et al. 2020). start_step: until this number of updates, each average
    is a copy of the weights. Averages are child modules, so a checkpoint contains raw and averaged weights.
    """

    def __init__(self, network: nn.Module, decay: Floats, warmup: bool = True, start_step: int = 0) -> None:
        super().__init__()
        given = [decay] if isinstance(decay, int | float) else list(decay)
        self.decays = [check.number("decay", d, low=0, high=1) for d in given]
        if len(set(self.decays)) < len(self.decays) or 1 in self.decays:
            check.fail("decay", given, "different numbers, each below 1")
        self.warmup = check.boolean("warmup", warmup)
        self.start_step = check.non_negative_int("start_step", start_step)
        self.copies = nn.ModuleList(copy.deepcopy(network).requires_grad_(False) for _ in self.decays)
        self.num_updates = 0

    def decay_now(self, decay: float) -> float:
        """The decay of the next update."""
        n = self.num_updates - self.start_step
        if n < 0:
            return 0.0
        return min(decay, (1 + n) / (10 + n)) if self.warmup else decay

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        for decay, average in zip(self.decays, self.copies, strict=True):
            weights, averaged = list(network.parameters()), list(average.parameters())
            torch._foreach_lerp_(averaged, weights, 1 - self.decay_now(decay))
            for source, target in zip(network.buffers(), average.buffers(), strict=True):
                target.copy_(source)
        self.num_updates += 1

    def get_extra_state(self) -> dict[str, Any]:
        return {"num_updates": self.num_updates, "decays": self.decays}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        if len(state["decays"]) != len(self.decays):
            check.fail("ema.decay", self.decays, f"as many as in the checkpoint, {state['decays']}")
        self.num_updates = state["num_updates"]


def decay_of_half_life(half_life_images: float, batch_size: int) -> float:
    """0.5^(batch_size / half_life_images): the decay with which the weight of a value halves in this many images."""
    if check.number("half_life_images", half_life_images, low=0) == 0:
        check.fail("half_life_images", half_life_images, "greater than 0")
    return 0.5 ** (check.positive_int("batch_size", batch_size) / half_life_images)


def weight_averages(
    network: nn.Module,
    decay: Floats | None,
    half_life_images: Floats | None,
    batch_size: int,
    warmup: bool,
    start_step: int,
) -> WeightAverages:
    """Build averages from decays, or from half-lives in training images, which do not depend on the batch size."""
    if (decay is None) == (half_life_images is None):
        raise ValueError(
            f"ema.decay={decay} and ema.half_life_images={half_life_images} set the same thing twice; "
            "give one of them and set the other to null"
        )
    if half_life_images is not None:
        lives = [half_life_images] if isinstance(half_life_images, int | float) else half_life_images
        decay = [decay_of_half_life(life, batch_size) for life in lives]
    return WeightAverages(network, decay, warmup, start_step)
