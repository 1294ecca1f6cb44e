"""Build a model from a configuration: schedule -> process -> objective and sampler; network -> averages."""

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, open_dict
from torch import nn

from ddpm.base import check
from ddpm.base.memory import require_memory
from ddpm.checkpoint.groups import UNGUIDED
from ddpm.checkpoint.stored_config import FITTED, Fitted
from ddpm.config.codec import Load, build_codec
from ddpm.config.guidance import set_up_guidance
from ddpm.config.wiring import complete, instantiate, is_chosen
from ddpm.diffusion.binomial import BinomialDiffusion
from ddpm.diffusion.conditions.base import Condition
from ddpm.diffusion.conditions.low_resolution import LowResolution
from ddpm.diffusion.conditions.masked import Masked
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.losses import AdversarialLoss, Loss
from ddpm.diffusion.noises.base import White
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.schedules.base import Schedule
from ddpm.model.codec import BinaryCodec, Codec
from ddpm.model.diffusion_model import DiffusionModel, no_samples
from ddpm.runs.portable import to_portable

NOTHING: Fitted = MappingProxyType({})


def build_model(config: DictConfig, fitted: Fitted, load: Load) -> DiffusionModel:
    """Build an untrained model. fitted: values fitted to the data, by group. load: loads a model used by guidance."""
    schedule = instantiate(config.schedule, "schedule")
    process = forward_process(config, schedule, fitted)
    stored, config = {**to_portable(config), FITTED: dict(fitted)}, with_network_settings(config, fitted)
    image_shape = (config.data.channels, *check.height_width("data.size", config.data.size))
    codec = build_codec(config, fitted, load)
    if isinstance(process, BinomialDiffusion) and not isinstance(codec, BinaryCodec):
        raise ValueError("process=binomial needs pixels of -1 and 1: choose codec=binary")
    refuse_clipping(config, codec)
    if is_chosen(config, "text") and not config.cond.get("text"):
        raise ValueError("text has an effect with cond=caption only; add it, or leave text out")
    condition = instantiate(config.cond, "cond", **fitted.get("cond", {}))
    if isinstance(condition, Masked):
        condition = replace(condition, encode=codec.encode)
    refuse_low_res_of_other_shape(condition, image_shape, codec.latent_shape(image_shape))
    require_memory_for_weights(config)
    torch.manual_seed(check.non_negative_int("seed", config.seed))
    network = instantiate(config.model, "model")
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"model={type(network).__name__} is a closed-form denoiser, which cannot be trained; use it with "
            "python evaluate.py model=oracle_mixture metric=sampler_error"
        )
    if check.boolean("channels_last", config.channels_last):
        network = network.to(memory_format=torch.channels_last)
    refuse_other_channels(network, codec.latent_shape(image_shape))
    averages = complete(instantiate(config.ema, "ema"), "ema", network=network)
    if check.boolean("compile", config.compile):
        network.compile()
    objective = complete(instantiate(config.objective, "objective"), "objective", schedule=schedule)
    refuse_another_objective(network, type(objective).__name__)
    make_sampler, latent_channels = instantiate(config.sampler, "sampler"), getattr(network, "latent_channels", None)
    if latent_channels:
        make_sampler.func.refuse_latents()
    sampler = complete(make_sampler, "sampler", process=process)
    sampler.times(process.T)  # only to raise its errors early
    if latent_channels:
        sampler = sampler.with_latents(latent_channels)
    elif getattr(sampler, "latent", "fresh") != "fresh":
        check.fail("sampler.latent", sampler.latent, "fresh for a network without a latent")
    guidance = set_up_guidance(config, condition, sampler, codec, load, objective)
    if no_samples(network) is None:
        guidance.wrap(NetworkDenoiser(network, objective))  # only to raise its errors early
    return DiffusionModel(
        network=network,
        averages=averages,
        objective=objective,
        sampler=sampler,
        wrap=guidance.wrap,
        codec=codec,
        condition=condition,
        sample_condition=guidance.sample_condition,
        image_shape=image_shape,
        seed=config.seed,
        compile=config.compile,
        config=stored,
        guides=guidance.networks,
    )


def require_memory_for_weights(config: DictConfig) -> None:
    """Raise ValueError if the weights and their averages need more memory than is available. Allocates none."""
    with torch.device("meta"):
        network = instantiate(config.model, "model")
    if not isinstance(network, nn.Module):
        return
    sizes = {name: weight.numel() * weight.element_size() for name, weight in network.state_dict().items()}
    name = max(sizes, key=lambda key: sizes[key], default="")
    decays = config.ema.get("decay")
    copies = 1 + (len(decays) if isinstance(decays, Sequence) else 1)
    what = f"model={type(network).__name__}, with {sizes.get(name, 0) / 1e9:,.1f} GB in {name},"
    require_memory(copies * sum(sizes.values()), what)


def refuse_idle_eps(changed: Mapping[str, Any], config: DictConfig) -> None:
    """Raise ValueError if the changed fields of the sampler ask for eps before a clipping that there is not. A stored
    configuration may, as that of a DDIMScheduler without clipping."""
    if changed.get("clipped_eps") is False and config.clip._target_ == UNGUIDED["_target_"]:
        raise ValueError(
            "sampler.clipped_eps=false has no effect with clip=none, which leaves x0 as it is; leave it out"
        )


def refuse_another_objective(network: nn.Module, name: str) -> None:
    """Raise ValueError for a network whose output is an image, with an objective for which it is not x0."""
    if getattr(network, "predicts", name) != name:
        check.fail("objective", name, f"x0 with model={type(network).__name__}, whose output is an image")


def refuse_clipping(config: DictConfig, codec: Codec) -> None:
    if not codec.bounded and config.clip._target_ != UNGUIDED["_target_"]:
        name = config.clip._target_.rpartition(".")[2]
        raise ValueError(f"clip={name} needs x0 in [-1, 1], which latents leave: choose clip=none")


def refuse_low_res_of_other_shape(
    condition: Condition, image_shape: tuple[int, int, int], shape: tuple[int, int, int]
) -> None:
    """Raise ValueError if small images cannot be concatenated to x0 of this shape."""
    if not isinstance(condition, LowResolution):
        return
    small = condition.small_shape(image_shape)
    if small[0] != shape[0] or small[1] > shape[1] or small[2] > shape[2]:
        raise ValueError(
            f"cond=low_res gives images of {list(small)}, which cannot be concatenated to latents of {list(shape)}: "
            "choose codec=pixel, or a larger cond.factor and a first stage with as many channels as the images"
        )


def refuse_other_channels(network: nn.Module, shape: tuple[int, int, int]) -> None:
    """Raise ValueError unless the network takes x0 of this shape."""
    channels = getattr(network, "in_channels", shape[0])
    if channels != shape[0]:
        check.fail("model.in_channels", channels, f"{shape[0]}, the channels of what is diffused")


def forward_process(config: DictConfig, schedule: Schedule, fitted: Fitted) -> ForwardProcess:
    """Build the forward process with its schedule and, if it uses one, its noise."""
    process, noise = instantiate(config.process, "process"), instantiate(config.noise, "noise")
    arguments = {"schedule": schedule, **fitted.get("process", {})}
    if "noise" in inspect.signature(process).parameters:
        return complete(process, "process", noise=noise, **arguments)
    made = complete(process, "process", **arguments)
    if not isinstance(noise, White):
        name, source = type(made).__name__, type(noise).__name__
        raise ValueError(f"process={name} does not use noise={source}; choose noise=gaussian, or process=gaussian")
    return made


def build_loss(
    config: DictConfig, process: ForwardProcess, adversary: nn.Module | None, perceptual: nn.Module | None = None
) -> Loss | AdversarialLoss:
    """The loss, with the adversary that it trains against and the perceptual distance, if it takes them."""
    loss = instantiate(config.loss, "loss")
    taken = inspect.signature(loss).parameters
    if "adversary" in taken and taken["adversary"].default is inspect.Parameter.empty and adversary is None:
        raise ValueError("this loss trains against an adversary: choose one, as adversary=ddgan_small")
    if adversary is not None and "adversary" not in taken:
        raise ValueError(
            f"adversary={config.adversary._target_.rpartition('.')[2]} has nothing to do in this loss; choose "
            "loss=ddgan, or loss=first_stage_kl with a first stage"
        )
    if adversary is not None and not is_chosen(config, "adversary_optimizer"):
        raise ValueError("an adversary needs its own optimizer: add adversary_optimizer=adam")
    if is_chosen(config, "perceptual") and "perceptual" not in taken:
        raise ValueError("perceptual has no effect in this loss: choose loss=first_stage_kl, or perceptual=none")
    parts = {"adversary": adversary, "perceptual": perceptual}
    return complete(loss, "loss", process=process, **{name: part for name, part in parts.items() if name in taken})


def with_network_settings(config: DictConfig, fitted: Fitted) -> DictConfig:
    """The configuration with the network settings that other parts need, unless they are set already.

    A learned variance needs more outputs, a condition needs an input. Call this before a command changes the variance
    for sampling, because the network must stay the trained one.
    """
    taken = inspect.signature(hydra.utils.get_object(config.model._target_)).parameters
    needed = dict(instantiate(config.cond, "cond", **fitted.get("cond", {})).network_settings)
    for name, value in needed.items():
        if name not in taken:
            model, cond = (config[group]._target_.rpartition(".")[2] for group in ("model", "cond"))
            raise ValueError(f"model={model} does not support cond={cond} (it has no {name}); choose another model")
        if config.model.get(name) not in (None, False, value):
            check.fail(f"model.{name}", config.model[name], f"{value}, which cond needs, or left out")
    per_channel = instantiate(config.variance, "variance").num_outputs
    if per_channel > 1 and "out_channels" in taken and config.model.get("out_channels") is None:
        needed["out_channels"] = per_channel * config.model.in_channels
    if not needed:
        return config
    with open_dict(copy.deepcopy(config)) as changed:
        changed.model.update(needed)
        if is_chosen(config, "adversary"):  # takes the same conditions
            known = inspect.signature(hydra.utils.get_object(config.adversary._target_)).parameters
            changed.adversary.update({name: value for name, value in needed.items() if name in known})
        return changed


def build_adversary(config: DictConfig, fitted: Fitted) -> nn.Module | None:
    if not is_chosen(config, "adversary"):
        return None
    return instantiate(with_network_settings(config, fitted).adversary, "adversary")


def build_perceptual(config: DictConfig) -> nn.Module | None:
    """ValueError where its weights are missing."""
    return instantiate(config.perceptual, "perceptual") if is_chosen(config, "perceptual") else None
