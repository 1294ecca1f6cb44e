"""Networks of denoising diffusion GANs out of the files of their authors' program, without that program.

Xiao et al. 2022, github.com/NVlabs/denoising-diffusion-gan. `netG_N.pth` is a state dict of the averaged generator;
`content.pth` is a training. The keys begin with `module.`, since DDP wraps the networks there.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ddpm.base import check
from ddpm.base.untrusted import Inert
from ddpm.interop.configuration import Config, all_groups, leaf
from ddpm.interop.weights import Weights, name_errors, read_file, shape_of, state_dict_of, to_ours
from ddpm.networks.attention import Attention
from ddpm.networks.ddgan_generator import DDGANGenerator, StyleBlock

PUBLISHED = {  # channel_mults, attention_levels, side of the images, number of steps; by the number of the last layer
    39: ([1, 2, 2, 2], [1], 32, 4),  # CIFAR-10
    55: ([1, 1, 2, 2, 4, 4], [4], 256, 2),  # CelebA-HQ; LSUN church, of 4 steps, is not published
}


@dataclass(frozen=True)
class DDGANModel:
    """settings: the arguments of the generator. weights: its state dict, float32, on the CPU. size: of the images."""

    settings: dict[str, Any]
    weights: Weights
    size: int
    num_timesteps: int


def load_ddgan(path: Path) -> DDGANModel:
    stored, arguments = read_file(path, inert=["argparse.Namespace"]), {}
    if isinstance(stored, dict) and "netG_dict" in stored:
        arguments = vars(stored["args"]) if isinstance(stored.get("args"), Inert) else {}
        stored = averaged(stored, path)
    weights = state_dict_of(stored, path)
    with name_errors(path):
        return generator(weights, arguments)


def averaged(stored: dict[Any, Any], path: Path) -> dict[str, Any]:
    """The generator of a content.pth. Its averages are in its optimizer's state, by number; without any, it is raw."""
    raw, optimizer = state_dict_of(stored["netG_dict"], path), stored.get("optimizerG")
    states = optimizer.get("state") if isinstance(optimizer, dict) else None
    states = states.items() if isinstance(states, dict) else ()
    averages = {number: state["ema"] for number, state in states if isinstance(state, dict) and "ema" in state}
    if averages and averages.keys() != set(range(len(raw))):
        raise ValueError(f"ckpt={path} has averages of {len(averages)} weights, and its generator has {len(raw)}")
    return {key: averages[i] for i, key in enumerate(raw)} if averages else raw


LAYERS = {
    **{"norm1.style": ["GroupNorm_0.style"], "conv1": ["Conv_0"], "time": ["Dense_0"]},
    **{"norm2.style": ["GroupNorm_1.style"], "conv2": ["Conv_1"], "shortcut": ["Conv_2"]},
    **{"norm": ["GroupNorm_0"], "qkv": ["NIN_0", "NIN_1", "NIN_2"], "out": ["NIN_3"]},
    **{"1": ["Conv2d_0"], "": [""]},
}
"""Names within a block, an attention, a step of the pyramid, and of a layer that is none of these; ours and theirs."""


def generator(weights: Weights, arguments: dict[str, Any]) -> DDGANModel:
    """arguments: of the command that trained it, as far as they are known."""
    theirs = {re.sub(r"\.b$", ".bias", key.removeprefix("module.")): weight for key, weight in weights.items()}
    for key in [key for key in theirs if re.search(r"\.NIN_\d\.W$", key)]:  # a 1x1 convolution, inputs by outputs
        shape_of(theirs, key, dims=2)
        theirs[f"{key[:-1]}weight"] = theirs.pop(key).t()
    last = max((int(number) for key in theirs for number in re.findall(r"^all_modules\.(\d{1,3})\.", key)), default=0)
    mults, levels, size, num_timesteps = PUBLISHED[check.one_of("the number of its last layer", last, PUBLISHED)]
    base_channels, in_channels, *_ = shape_of(theirs, "all_modules.2.weight", 4)
    style_channels, latent_channels = shape_of(theirs, "z_transform.1.weight", 2)
    settings = {
        **{"in_channels": in_channels, "base_channels": base_channels, "channel_mults": mults, "num_res_blocks": 2},
        **{"attention_levels": levels, "latent_channels": latent_channels, "style_channels": style_channels},
        "num_mapping_layers": sum(re.fullmatch(r"z_transform\.\d+\.weight", key) is not None for key in theirs) - 1,
    }
    with torch.device("meta"):
        network = DDGANGenerator(**settings)
    numbers = layer_numbers(network)

    def their_keys(key: str) -> list[str]:
        module, _, kind = key.rpartition(".")
        if module.startswith("mapping."):
            return [key.replace("mapping", "z_transform")]
        layer = max((name for name in numbers if f"{module}.".startswith(f"{name}.")), key=len)
        parts = LAYERS[module.removeprefix(layer).removeprefix(".")]
        return [".".join(filter(None, ["all_modules", str(numbers[layer]), part, kind])) for part in parts]

    renamed = to_ours(theirs, network.state_dict(), their_keys)
    num_timesteps = check.positive_int("num_timesteps", arguments.get("num_timesteps", num_timesteps))
    return DDGANModel(settings, renamed, size, num_timesteps)


def layer_numbers(network: DDGANGenerator) -> dict[str, int]:
    """The place of each of our layers in their list, which is in the order of execution."""
    kinds = (StyleBlock, Attention, torch.nn.Sequential)
    inner = [name for name, module in network.named_modules() if isinstance(module, kinds) and name != "mapping"]
    return {name: number for number, name in enumerate(["time.linear1", "time.linear2", "stem", *inner, "norm", "out"])}


def ddgan_configuration(pretrained: DDGANModel) -> Config:
    """What build.module needs for sampling, as theirs do it: all steps, each from the posterior of an x0 of its own."""
    betas = {"num_timesteps": pretrained.num_timesteps, "beta_min": 0.1, "beta_max": 20, "t_min": 1e-3}
    model = leaf("networks.ddgan_generator.DDGANGenerator", **pretrained.settings)
    config = all_groups(model, [pretrained.size] * 2, leaf("diffusion.schedules.curves.vp", **betas), "X0")
    return {**config, "clip": leaf("diffusion.denoiser.no_wrapper", _partial_=True)}
