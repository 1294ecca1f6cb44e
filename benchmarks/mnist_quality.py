"""How many samples of the MNIST demo read as digits, by a classifier that has nothing to do with the diffusion model.

    python sample.py ckpt=latest num_samples=512 format=npz out=SAMPLES
    python -m benchmarks.mnist_quality SAMPLES/samples.npz

A small convolutional network learns 4,500 of the embedded digits (a minute on two cores) and is tested on the other
500. Printed: the share of samples it gives over 0.9 and over 0.99 to one class, the Frechet distance of its features
to those of the 5,000, and the evenness of the classes (entropy over its maximum). Confidence alone is lenient: two
digits drawn over each other still get over 0.9 in most cases, so 0.99 and the distance belong to it.
"""

import argparse
import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.image.fid import _compute_fid

from ddpm.data.sources.mnist import Mnist


class Classifier(nn.Module):
    """80,000 parameters; features `[B, 96]`."""

    def __init__(self) -> None:
        super().__init__()
        widths = [1, 16, 32, 64]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.hidden, self.out, self.dropout = nn.Linear(64 * 9, 96), nn.Linear(96, 10), nn.Dropout(0.3)

    def features(self, x: Tensor) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.max_pool2d(F.relu(norm(convolution(x))), 2)
        return F.relu(self.hidden(self.dropout(x.flatten(1))))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.dropout(self.features(x)))


def moved(x: Tensor) -> Tensor:
    """Images a little turned, scaled and shifted at random."""
    n = len(x)
    angle, scale = (torch.rand(n) - 0.5) * 0.4, 1 + (torch.rand(n) - 0.5) * 0.2
    maps = torch.zeros(n, 2, 3)
    maps[:, 0, 0] = maps[:, 1, 1] = angle.cos() * scale
    maps[:, 1, 0] = angle.sin() * scale
    maps[:, 0, 1] = -maps[:, 1, 0]
    maps[:, :, 2] = (torch.rand(n, 2) - 0.5) * 0.24
    return F.grid_sample(x + 1, F.affine_grid(maps, list(x.shape), align_corners=False), align_corners=False) - 1


def trained(images: Tensor, labels: Tensor, epochs: int = 40) -> Classifier:
    network = Classifier()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    steps = epochs * math.ceil(len(images) / 100)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(100):
            loss = F.cross_entropy(network(moved(images[batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def quality(network: Classifier, images: Tensor, real: Tensor) -> str:
    confidence, label = network(images).softmax(1).max(1)
    shares = label.bincount(minlength=10) / len(label)
    evenness = -(shares * shares.clamp(min=1e-9).log()).sum() / math.log(10)
    moments = [(f.mean(0), f.T.cov()) for f in (network.features(x).double() for x in (images, real))]
    distance = _compute_fid(moments[0][0], moments[0][1], moments[1][0], moments[1][1])
    return (
        f"n {len(images)}: over 0.9 {(confidence > 0.9).float().mean():.3f}, over 0.99 "
        f"{(confidence > 0.99).float().mean():.3f}, Frechet distance {distance:.1f}, evenness {evenness:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", nargs="*", help="files of sample.py format=npz")
    torch.manual_seed(0)
    source = Mnist().open()
    real = torch.stack([torch.from_numpy(source.image(i)).reshape(1, 28, 28) for i in range(5000)]).float() / 127.5 - 1
    labels = torch.as_tensor(source.labels).long()
    order = torch.randperm(5000)
    network = trained(real[order[500:]], labels[order[500:]])
    held_out = real[order[:500]]
    with torch.no_grad():
        accuracy = (network(held_out).argmax(1) == labels[order[:500]]).float().mean()
    print(f"classifier: {accuracy:.3f} right on the 500 held-out digits")
    print(f"real digits, held out: {quality(network, held_out, real)}")
    print(f"two digits overlaid: {quality(network, torch.maximum(held_out[:250], held_out[250:]), real)}")
    for path in parser.parse_args().samples:
        pixels = torch.from_numpy(np.load(path)["arr_0"]).permute(0, 3, 1, 2).float() / 127.5 - 1
        print(f"{path}: {quality(network, pixels, real)}")


if __name__ == "__main__":
    main()
