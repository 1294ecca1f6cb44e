"""A module with one set of weights alone, as an exported folder holds it.

An average stays an average and not a network, so that it is built, named and run as it is from the checkpoint.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ddpm.interop.configuration import averages
from ddpm.interop.exported_folder import Exported
from ddpm.model.diffusion_model import DiffusionModel


class MissingWeights(nn.Module):
    """In the place of raw weights that were not exported."""

    def __init__(self, present: str) -> None:
        super().__init__()
        self.present = present

    def refuse(self) -> None:
        raise ValueError(f"weights must be ema or {self.present}, got 'raw'; the exported folder holds no others")

    def forward(self, *args: Any, **kwargs: Any) -> None:
        self.refuse()


def to_exported(module: DiffusionModel, weights: str) -> Exported:
    """What a folder is to hold of the module. weights: `raw`, `ema` (the first average) or `ema_DECAY`."""
    network = exported_network(module, weights)
    decays = [decay for decay in module.averages.decays if module.weights(f"ema_{decay:g}") is network]
    name = weights_name(decays)
    return Exported({**module.config, "ema": averages(*decays)}, name, state_entries(module, name))


def weights_name(decays: list[float]) -> str:
    """The name of the weights of a folder whose model has these averages, one or none."""
    return f"ema_{decays[0]:g}" if decays else "raw"


def state_prefix(weights: str) -> str:
    """Where the state dict of a module has them, if no other average is there."""
    return "network." if weights == "raw" else "averages.copies.0."


def exported_network(module: DiffusionModel, weights: str) -> nn.Module:
    """The network with these weights, or a ValueError if they were left out of the folder that the module is from."""
    network = module.weights(weights)
    if isinstance(network, MissingWeights):
        network.refuse()
    return network


def state_entries(module: DiffusionModel, weights: str) -> dict[str, Tensor]:
    """The state dict of the module without weights but these."""
    state = {key: value for key, value in module.state_dict().items() if not key.startswith(("network.", "averages."))}
    return {**state, **module.weights(weights).state_dict(prefix=state_prefix(weights))}


def load_exported(module: DiffusionModel, exported: Exported, folder: Path) -> None:
    """Into a module built from the folder's configuration, the folder's tensors, which are known to fit."""
    name = weights_name(module.averages.decays)
    if exported.weights != name:
        raise ValueError(f"{folder} must hold {name} weights, as its configuration says, got {exported.weights!r}")
    if exported.damaged:
        raise ValueError(f"{folder} holds damaged tensors: their sha256 is another than it says; export the model anew")
    module.load_state_dict(exported.tensors, strict=False)
    if exported.weights != "raw":
        module.network = MissingWeights(exported.weights)
