"""Optimizers with linear warmup and optional cosine decay of the learning rate."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ddpm.base import check
from ddpm.training.muon import Muon

MakeOptimizer = Callable[[Iterable[nn.Parameter]], tuple[torch.optim.Optimizer, LambdaLR]]


def warmup_factor(step: int, warmup_steps: int) -> float:
    """Rises linearly and reaches 1 at the `warmup_steps`-th step; step counts from 0."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def cosine_factor(step: int, num_steps: int) -> float:
    """Falls from 1 at step 0 to 0 at step `num_steps`."""
    return 0.5 * (1 + math.cos(math.pi * min(step / num_steps, 1.0)))


def factor(step: int, warmup_steps: int, num_steps: int, cosine_decay: bool, lowest: float) -> float:
    """The factor of the learning rate. lowest: final factor of the cosine decay."""
    decay = lowest + (1 - lowest) * cosine_factor(step, num_steps) if cosine_decay else 1.0
    return warmup_factor(step, warmup_steps) * decay


def make(
    parameters: Iterable[nn.Parameter],
    kind: Callable[..., torch.optim.Optimizer],
    num_steps: int,
    lr: float,
    warmup_steps: int,
    cosine_decay: bool,
    min_lr: float = 0.0,
    betas: Sequence[float] = (0.9, 0.999),
    **options: Any,
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """An optimizer and its learning rate schedule, which is stepped once per optimizer step.

    num_steps: optimizer steps of the run. min_lr: final learning rate of the cosine decay.
    """
    check.number("lr", lr, low=0)
    check.non_negative_int("warmup_steps", warmup_steps)
    check.integer("trainer.max_steps", num_steps, low=1)
    check.boolean("cosine_decay", cosine_decay)
    if check.number("min_lr", min_lr, low=0) > lr:
        check.fail("min_lr", min_lr, f"at most lr = {lr}")
    if len(betas) != 2:
        check.fail("betas", betas, "two numbers in [0, 1)")
    for beta in betas:
        if check.number("betas", beta, low=0, high=1) == 1:
            check.fail("betas", betas, "two numbers in [0, 1)")
    if "momentum" in options and check.number("momentum", options["momentum"], low=0, high=1) == 1:
        check.fail("momentum", options["momentum"], "a number in [0, 1)")
    for name in ("eps", "weight_decay"):
        check.number(name, options.get(name, 0.0), low=0)
    check.boolean("fused", options.get("fused", False))
    optimizer = kind(parameters, lr=lr, betas=tuple(betas), **options)
    lowest = min_lr / lr if lr else 0.0
    schedule = partial(factor, warmup_steps=warmup_steps, num_steps=num_steps, cosine_decay=cosine_decay, lowest=lowest)
    return optimizer, LambdaLR(optimizer, lambda step: schedule(step))


adam = partial(make, kind=torch.optim.Adam)
adamw = partial(make, kind=torch.optim.AdamW)
muon = partial(make, kind=Muon)
