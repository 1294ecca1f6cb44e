"""Check the values of a training before Lightning is imported, which takes four seconds."""

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ddpm.base import check
from ddpm.checkpoint.groups import chosen_at_the_start
from ddpm.config.model import build_loss, forward_process, with_network_settings
from ddpm.config.wiring import complete, instantiate, is_chosen


def check_values(config: DictConfig) -> None:
    """Build all parts except the data, the network without memory. Raises ValueError that names the field."""
    if config.limits.max_minutes is not None:
        check.positive_number("limits.max_minutes", config.limits.max_minutes)
    if config.trainer.max_steps is None:  # chosen later
        config = OmegaConf.merge(config, {"trainer": {"max_steps": 1}})
    check.integer("trainer.max_steps", config.trainer.max_steps, low=1)
    check_network(config)
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


def check_network(config: DictConfig) -> None:
    """Check the fields of the network, and whether it takes images of this size. Allocates no memory."""
    is_open = any(OmegaConf.select(config, key, default=0) is None for key in chosen_at_the_start())
    if is_open or config.cond.get("text"):  # the words of captions are those of the data
        return
    classes = {"num_classes": config.data.num_classes or 2} if config.cond.get("num_classes", 0) is None else {}
    config = with_network_settings(config, {"cond": classes})
    with torch.device("meta"):
        network = instantiate(config.model, "model")
    if "first_stage" not in config.codec and "in_channels" in config.model:
        height, width = check.height_width("data.size", config.data.size)
        getattr(network, "check_images", lambda shape: None)((config.model.in_channels, height, width))
