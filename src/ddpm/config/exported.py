"""Convert a model to and from an exported folder, which holds one set of weights.

An exported average stays an average of the model, so that it is built, named and used as from the checkpoint.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ddpm.interop.configuration import averages
from ddpm.interop.exported_folder import Exported
from ddpm.model.diffusion_model import DiffusionModel


class MissingWeights(nn.Module):
    """Placeholder for raw weights that were not exported. `forward` raises ValueError."""

    def __init__(self, present: str) -> None:
        super().__init__()
        self.present = present

    def refuse(self) -> None:
        raise ValueError(f"weights must be ema or {self.present}, got 'raw'; the exported folder has no other weights")

    def forward(self, *args: Any, **kwargs: Any) -> None:
        self.refuse()


def to_exported(model: DiffusionModel, weights: str) -> Exported:
    """The content of an exported folder. weights: `raw`, `ema` (the first average) or `ema_DECAY`."""
    network = exported_network(model, weights)
    decays = [decay for decay in model.averages.decays if model.weights(f"ema_{decay:g}") is network]
    name = weights_name(decays)
    return Exported({**model.config, "ema": averages(*decays)}, name, state_entries(model, name))


def weights_name(decays: list[float]) -> str:
    """Name of the weights in a folder whose model has these averages (one or none)."""
    return f"ema_{decays[0]:g}" if decays else "raw"


def state_prefix(weights: str) -> str:
    """Prefix of these weights in the state dict of a model with at most one average."""
    return "network." if weights == "raw" else "averages.copies.0."


def exported_network(model: DiffusionModel, weights: str) -> nn.Module:
    """The network with these weights. Raises ValueError if the model is from a folder without them."""
    network = model.weights(weights)
    if isinstance(network, MissingWeights):
        network.refuse()
    return network


def state_entries(model: DiffusionModel, weights: str) -> dict[str, Tensor]:
    """The state dict of the model with only these weights."""
    state = {key: value for key, value in model.state_dict().items() if not key.startswith(("network.", "averages."))}
    return {**state, **model.weights(weights).state_dict(prefix=state_prefix(weights))}


def load_exported(model: DiffusionModel, exported: Exported, folder: Path) -> None:
    """Load the tensors of a folder into a model built from its configuration. Their shapes must be checked before."""
    name = weights_name(model.averages.decays)
    if exported.weights != name:
        raise ValueError(f"{folder} must hold {name} weights, as its configuration says, got {exported.weights!r}")
    if exported.damaged:
        raise ValueError(f"{folder} has damaged tensors: their sha256 differs from the stored one; export it again")
    model.load_state_dict(exported.tensors, strict=False)
    if exported.weights != "raw":
        model.network = MissingWeights(exported.weights)
