"""What the programs that train the shipped classifiers have in common."""

from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from ddpm.metrics.extractors.classifier import SmallNetwork


def train(
    build: Callable[[], SmallNetwork],
    images: Tensor,
    labels: Tensor,
    augmented: Callable[[Tensor, torch.Generator], Tensor],
    num_epochs: int,
    batch_size: int,
    peak_lr: float,
) -> SmallNetwork:
    """augmented: what the network gets for some of `images`, changed at random."""
    torch.manual_seed(0)
    make = torch.Generator().manual_seed(0)
    network = build()
    optimizer = torch.optim.AdamW(network.parameters(), peak_lr, weight_decay=0.05)
    steps_per_epoch = len(images) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_lr, num_epochs * steps_per_epoch)
    for epoch in range(num_epochs):
        for rows in torch.randperm(len(images), generator=make).split(batch_size)[:steps_per_epoch]:
            logits = network(augmented(images[rows], make))["logits"]
            loss = nn.functional.cross_entropy(logits, labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {num_epochs}: loss {loss.item():.4f}", flush=True)
    return network.eval()


@torch.no_grad()
def store(
    network: SmallNetwork,
    path: Path,
    description: str,
    images: Tensor,
    labels: Tensor,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write the weights, rounded to `dtype`, with the number of these held-out images that are right."""
    tensors = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
    }
    network.load_state_dict(tensors)
    found = torch.cat([network(some)["logits"].argmax(1) for some in images.split(1000)])
    right = f"{(found == labels).sum().item()} of {len(images)}"
    safetensors.torch.save_file(tensors, path, {"description": description, "held_out_right": right})
    print(f"{right} held-out images right; {path}, {path.stat().st_size:,} bytes")
