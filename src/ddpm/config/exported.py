"""A model with one set of weights alone, as an exported folder holds it.

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


def to_exported(model: DiffusionModel, weights: str) -> Exported:
    """What a folder is to hold of the model. weights: `raw`, `ema` (the first average) or `ema_DECAY`."""
    network = exported_network(model, weights)
    decays = [decay for decay in model.averages.decays if model.weights(f"ema_{decay:g}") is network]
    name = weights_name(decays)
    return Exported({**model.config, "ema": averages(*decays)}, name, state_entries(model, name))


def weights_name(decays: list[float]) -> str:
    """The name of the weights of a folder whose model has these averages, one or none."""
    return f"ema_{decays[0]:g}" if decays else "raw"


def state_prefix(weights: str) -> str:
    """Where the state dict of a model has them, if no other average is there."""
    return "network." if weights == "raw" else "averages.copies.0."


def exported_network(model: DiffusionModel, weights: str) -> nn.Module:
    """The network with these weights, or a ValueError if they were left out of the folder that the model is from."""
    network = model.weights(weights)
    if isinstance(network, MissingWeights):
        network.refuse()
    return network


def state_entries(model: DiffusionModel, weights: str) -> dict[str, Tensor]:
    """The state dict of the model without weights but these."""
    state = {key: value for key, value in model.state_dict().items() if not key.startswith(("network.", "averages."))}
    return {**state, **model.weights(weights).state_dict(prefix=state_prefix(weights))}


def load_exported(model: DiffusionModel, exported: Exported, folder: Path) -> None:
    """Into a model built from the folder's configuration, the folder's tensors, which are known to fit."""
    name = weights_name(model.averages.decays)
    if exported.weights != name:
        raise ValueError(f"{folder} must hold {name} weights, as its configuration says, got {exported.weights!r}")
    if exported.damaged:
        raise ValueError(f"{folder} holds damaged tensors: their sha256 is another than it says; export the model anew")
    model.load_state_dict(exported.tensors, strict=False)
    if exported.weights != "raw":
        model.network = MissingWeights(exported.weights)
