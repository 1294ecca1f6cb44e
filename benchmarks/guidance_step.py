"""A guided DDIM step of the MNIST demo's network: 64 images of 28 x 28, class-conditional, no clipping on either side.

"of the networks" is the time against that of the bare calls of the same networks in interleaved rounds: for
classifier-free guidance the denoiser on 128 rows, for a classifier the denoiser on 64 and the classifier's forward and
backward. "without networks" is the step alone, with networks that answer at once. diffusers stands for the usual way:
its scheduler behind chunk and combine.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from benchmarks.interleaved import measure
from ddpm.diffusion.conditions.base import LABEL, ClassLabel
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.guidance.classifier import ClassifierGuided
from ddpm.diffusion.guidance.difference import ClassifierFree
from ddpm.diffusion.objective import Eps
from ddpm.diffusion.samplers.base import State
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.samplers.timestep_spacing import uniform
from ddpm.diffusion.schedules.betas import linear
from ddpm.networks.classifier import Classifier
from ddpm.networks.unet import UNet

SHAPE = (64, 1, 28, 28)
T, STEPS, FROM, TO = 1000, 50, 500, 480
SCALE = 3.0
SCHEDULE = linear(T, 1e-4, 0.02, rescale=True)
PROCESS = GaussianDiffusion(SCHEDULE)
SAMPLER = DDIM(PROCESS, uniform, STEPS, 0.0)


class AtOnce(nn.Module):
    """A denoiser's output that was there before."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.output = torch.randn(rows, *SHAPE[1:])

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        return self.output


def class_at_once(x: Tensor, time: Tensor) -> Tensor:
    """Logits whose gradient costs next to nothing."""
    return x.flatten(1)[:, :10]


def denoising_network() -> nn.Module:
    """That of model=unet_tiny cond=class."""
    return working(UNet(1, 32, [1, 2], 1, num_groups=8, patch_size=2, num_classes=10))


def classifying_network() -> nn.Module:
    """That of model=classifier_tiny."""
    settings: dict[str, Any] = {"scale_shift": True, "resample": "block", "convention": "adm", "num_timesteps": T}
    return working(
        Classifier(1, 28, 32, [1, 2], 1, num_classes=10, head_channels=32, num_groups=8, patch_size=2, **settings)
    )


def working(network: nn.Module) -> nn.Module:
    for parameter in network.eval().requires_grad_(False).parameters():
        torch.nn.init.normal_(parameter, std=0.05)  # some weights are zero at first, which is no work
    return network


class Contenders:
    """x_t, its time and classes, and what may be done with them."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.x_t, self.label = torch.randn(SHAPE), torch.arange(SHAPE[0]) % 10
        self.time, self.nothing = torch.full((SHAPE[0],), FROM - 1), torch.full_like(self.label, -1)
        self.scheduler = DDIMScheduler(T, 1e-4, 0.02, clip_sample=False, set_alpha_to_one=True)
        self.scheduler.set_timesteps(STEPS)

    def twice(self) -> tuple[Tensor, Tensor, Tensor]:
        return torch.cat([self.x_t] * 2), torch.cat([self.time] * 2), torch.cat([self.label, self.nothing])

    def step(self, denoiser: Any) -> Tensor:
        return SAMPLER.step(denoiser, State(FROM, self.x_t), TO, {LABEL: self.label}, None).x_t  # type: ignore[arg-type]

    def free(self, network: nn.Module) -> Tensor:
        network_denoiser = NetworkDenoiser(network, Eps(SCHEDULE))
        return self.step(ClassifierFree(network_denoiser, ClassLabel(10, 0.1), PROCESS, SCALE))

    def free_of_diffusers(self, network: nn.Module) -> Tensor:
        x, time, label = self.twice()
        told, untold = network(x, time, label=label).chunk(2)
        return self.scheduler.step(untold + SCALE * (told - untold), FROM - 1, self.x_t).prev_sample

    def classifier(self, network: nn.Module, classifier: Callable[..., Tensor]) -> Tensor:
        def logits(x_t: Tensor, t: int) -> Tensor:
            return classifier(x_t, self.time)

        network_denoiser = NetworkDenoiser(network, Eps(SCHEDULE))
        return self.step(ClassifierGuided(network_denoiser, logits, PROCESS, SCALE, "epsilon", "x_t", True, False))

    def forward_and_backward(self, classifier: nn.Module) -> Tensor:
        with torch.enable_grad():
            x = self.x_t.clone().requires_grad_()
            return torch.autograd.grad(classifier(x, self.time).sum(), x)[0]


def rows(rounds: int) -> list[dict[str, Any]]:
    each = Contenders()
    network, classifier = denoising_network(), classifying_network()
    one, two = AtOnce(SHAPE[0]), AtOnce(2 * SHAPE[0])
    twice = each.twice()

    def both_bare() -> None:
        network(each.x_t, each.time, label=each.label)
        each.forward_and_backward(classifier)

    with torch.no_grad():
        torch.testing.assert_close(each.free(network), each.free_of_diffusers(network), rtol=1e-3, atol=1e-3)
        free = measure(
            {
                "networks": lambda: network(twice[0], twice[1], label=twice[2]),
                "ours": lambda: each.free(network),
                "diffusers": lambda: each.free_of_diffusers(network),
            },
            rounds,
        )
        by_classifier = measure({"networks": both_bare, "ours": lambda: each.classifier(network, classifier)}, rounds)
        alone = measure(
            {
                "free": lambda: each.free(two),
                "free of diffusers": lambda: each.free_of_diffusers(two),
                "classifier": lambda: each.classifier(one, class_at_once),
            },
            30 * rounds,
            warmup=20,
        )
    shown = [
        ("classifier-free", free["ours"], alone["free"]),
        ("classifier-free by diffusers", free["diffusers"], alone["free of diffusers"]),
        ("classifier", by_classifier["ours"], alone["classifier"]),
    ]
    return [
        {
            "guidance": name,
            "ms": f"{1e3 * whole.seconds:.1f}",
            "of the networks": f"{1 / whole.speed:.3f}",
            "without networks, microseconds": f"{1e6 * without.seconds:.0f}",
        }
        for name, whole, without in shown
    ]
