"""The hash of a network's weights, for identities."""

import hashlib

import torch
from torch import nn


def weights_hash(network: nn.Module) -> str:
    """sha256 of names, dtypes, shapes and values of the weights."""
    total = hashlib.sha256()
    for name, value in network.state_dict().items():
        total.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
