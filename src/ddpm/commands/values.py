"""Check the values of a training before Lightning is imported, which takes three seconds."""

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ddpm.base import check
from ddpm.config.model import build_loss, forward_process
from ddpm.config.wiring import complete, instantiate, is_chosen


def check_values(config: DictConfig) -> None:
    """Build all parts except the network and the data. Raises ValueError that names the field."""
    if config.limits.max_minutes is not None:
        check.positive_number("limits.max_minutes", config.limits.max_minutes)
    if config.trainer.max_steps is None:  # chosen later
        config = OmegaConf.merge(config, {"trainer": {"max_steps": 1}})
    check.integer("seed", config.seed, 0, 2**63 - 1)  # what a checkpoint can hold
    schedule = instantiate(config.schedule, "schedule")
    process = forward_process(config, schedule, {})
    complete(instantiate(config.objective, "objective"), "objective", schedule=schedule)
    sampler = complete(instantiate(config.sampler, "sampler"), "sampler", process=process)
    sampler.times(process.T)
    build_loss(config, process, nn.Identity() if is_chosen(config, "adversary") else None)
    complete(instantiate(config.ema, "ema"), "ema", network=nn.Identity())
    for key in ("optimizer", "adversary_optimizer"):
        if is_chosen(config, key):
            complete(instantiate(config[key], key), key, parameters=[nn.Parameter(torch.zeros(1))])
