"""Networks as tests compare them: in float64, and with no weight that hides another; and those of conf/model."""

import hydra
import torch
from omegaconf import OmegaConf


def awake(module):
    """The module in float64 with every weight random: at its start the zeros in it hide most of it."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = noise / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 1 + 0.1 * noise
    return module.double().requires_grad_(False)


def num_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def built(model, device="meta", **changes):
    """The network of a composed group, as `config("train", "model=mlp").model`, without memory for its weights."""
    settings = OmegaConf.to_container(model, resolve=True) | changes
    with torch.device(device):
        return hydra.utils.instantiate(settings, _convert_="all")
