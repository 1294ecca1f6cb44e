"""A diffusion model: a network with its averaged weights, and everything needed to generate images with it."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from ddpm.base import check
from ddpm.base.rng import Rng
from ddpm.base.types import Cond
from ddpm.diffusion.conditions.base import Condition
from ddpm.diffusion.denoiser import Denoiser, NetworkDenoiser
from ddpm.diffusion.objective import Objective
from ddpm.diffusion.samplers.base import Sampler, State
from ddpm.model.codec import Codec
from ddpm.model.ema import WeightAverages
from ddpm.model.requests import resolve_request

AUTOCAST_DTYPES = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Lightning's names of precisions, and the dtype of autocast."""


class DiffusionModel(nn.Module):
    """image_shape: `(C, H, W)`. wrap: adds guidance and clipping to the denoiser for sampling.

    condition: condition of the network in training. sample_condition: condition of samples; it differs only if a
    classifier guides an unconditional network. guides: networks of other models, used by guidance; they are not in the
    state dict. config: plain containers, from which the model can be built again.
    """

    def __init__(
        self,
        network: nn.Module,
        averages: WeightAverages,
        objective: Objective,
        sampler: Sampler,
        wrap: Callable[[Denoiser], Denoiser],
        codec: Codec,
        condition: Condition,
        sample_condition: Condition,
        image_shape: tuple[int, int, int],
        seed: int,
        compile: bool,
        config: dict[str, Any],
        guides: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.network = network
        self.averages = averages
        self.objective = objective
        self.sampler = sampler
        self.wrap = wrap
        self.codec = codec
        self.condition = condition
        self.sample_condition = sample_condition
        self.guides = tuple(guide.requires_grad_(False).eval() for guide in guides)
        self.image_shape = image_shape
        self.config = config
        self.sample_rng = Rng(seed, "sample", compiled=compile)
        self.predict_weights = self.best_weights
        self.on_sampling_step: Callable[[State], None] = do_nothing
        self.batch_size = 64
        self.precision = "32-true"

    def _apply(self, move: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Also move the frozen networks."""
        for network in self.frozen:
            network._apply(move, recurse)
        return super()._apply(move, recurse)

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """Networks of other models, used by guidance and codec."""
        return *self.guides, *self.codec.networks

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    # Weights

    def weights(self, name: str) -> nn.Module:
        """The network with the weights `raw`, `ema` (the first average) or `ema_DECAY`. Raises ValueError."""
        averages = {f"ema_{d:g}": copy for d, copy in zip(self.averages.decays, self.averages.copies, strict=True)}
        networks = {"raw": self.network, **({"ema": next(iter(averages.values()))} if averages else {}), **averages}
        if name not in networks:
            raise ValueError(f"weights must be one of {', '.join(networks)}, got {name!r}")
        return networks[name]

    def describe_weights(self, name: str) -> str:
        """The name with its decay, for example "ema 0.9999"."""
        return f"ema {self.averages.decays[0]:g}" if name == "ema" else name.replace("_", " ")

    @property
    def best_weights(self) -> str:
        """`ema` if there are averages, else `raw`."""
        return "ema" if self.averages.decays else "raw"

    @property
    def best_network(self) -> nn.Module:
        """The network with these weights; an exported folder may hold no others."""
        return self.weights(self.best_weights)

    def use_for_prediction(self, weights: str, seed: int) -> None:
        """Set the weights (see `weights`; `best` means `ema` if there is one, else `raw`) and the seed for sampling."""
        name = self.best_weights if weights == "best" else weights
        self.weights(name)
        self.predict_weights = name
        self.sample_rng = replace(self.sample_rng, seed=check.integer("seed", seed, 0, 2**63 - 1))

    def with_guidance(self, wrap: Callable[[Denoiser], Denoiser], sample_condition: Condition) -> Self:
        """A model of the same networks that adds other guidance and clipping to the denoiser."""
        other = copy.copy(self)
        other.wrap, other.sample_condition, other.guides = wrap, sample_condition, ()
        return other

    # Samples

    def sample(
        self,
        num_samples: int,
        *,
        seed: int | None = None,
        label: int | str | Sequence[int | str] | None = None,
        prompt: str | Sequence[str] | None = None,
        weights: str | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """Generate images `[num_samples, C, H, W]`, float32 in [-1, 1], on the CPU, as sample.py does.

        seed: together with the sample number, it determines the noise. label: for class-conditional models, a class
        number or name, a list through which samples cycle, "all" (default) or "none". prompt: for caption-conditional
        models, a text or a list of texts. weights: see `use_for_prediction`. None keeps the loaded value.
        Raises ValueError for a request that the model does not support.
        """
        refuse_without_prior(self)
        check.positive_int("num_samples", num_samples)
        size = check.positive_int("batch_size", self.batch_size if batch_size is None else batch_size)
        rows = resolve_request(self.sample_condition, label, prompt, otherwise="all").rows
        before = self.predict_weights, self.sample_rng
        self.use_for_prediction(weights or self.predict_weights, self.sample_rng.seed if seed is None else seed)
        try:
            with self.inference():
                batches = []
                for ids in torch.arange(num_samples, device=self.device).split(size):
                    cond = {name: values.to(ids.device)[ids % len(values)] for name, values in rows.items()}
                    batches.append(self.generate(ids, self.predict_weights, cond))
        finally:
            self.predict_weights, self.sample_rng = before
        return torch.cat([batch.float().clamp(-1, 1).cpu() for batch in batches])

    @contextmanager
    def inference(self, autocast: AbstractContextManager[Any] | None = None) -> Iterator[None]:
        """Within it the networks neither drop out nor keep gradients.

        autocast: sets the precision, as a trainer's `precision_plugin.forward_context()`; None: that of `precision`.
        """
        if autocast is None:
            dtype = AUTOCAST_DTYPES[check.one_of("precision", self.precision, AUTOCAST_DTYPES)]
            autocast = torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None)
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad(), autocast:
                yield
        finally:
            self.train(was_training)

    @property
    def needs_images(self) -> bool:
        """Whether sampling needs real images, as condition or to start from."""
        return self.sample_condition.needs_images or not self.sampler.process.has_prior

    def start(self, ids: Tensor, images: Tensor | None = None) -> Tensor:
        """x_T `[B, *latent_shape]` of the samples `ids`, int64 `[B]`: of the prior, or without it degraded `images`."""
        process, draws = self.sampler.process, self.sample_rng.at(self.sampler.process.T, ids)
        if process.has_prior or images is None:
            return process.prior(self.latent_shape, draws)
        x0 = self.encode(images)
        return process.apply(x0, process.draw(x0, draws), process.T)

    def generate(self, ids: Tensor, weights: str, cond: Cond | None = None, images: Tensor | None = None) -> Tensor:
        """Generate images `[B, C, H, W]` of the samples `ids`, int64 `[B]`. Their noise does not depend on the other
        ids.

        cond: one row per sample. images: real images `[B, C, H, W]`, if sampling needs them (see `needs_images`).
        """
        x = self.start(ids, images)
        for state in self.sampler.trajectory(self.denoiser(weights), x, self.sample_rng, ids, cond):
            x = state.x_t
            self.on_sampling_step(state)
        return self.codec.decode(x)

    def denoiser(self, weights: str) -> Denoiser:
        """The denoiser for samplers: the network with these weights, with guidance and clipping."""
        return self.wrap(NetworkDenoiser(self.weights(weights), self.objective))

    def encode(self, images: Tensor) -> Tensor:
        """x0 `[B, *latent_shape]` of images `[B, C, H, W]` in [-1, 1]; the mean, if the codec has a distribution."""
        return self.codec.encode({"image": images})

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.codec.latent_shape(self.image_shape)


def refuse_without_prior(model: DiffusionModel) -> None:
    """Raise ValueError unless the model can generate images without real images."""
    why = no_samples(model.best_network)
    if why:
        raise ValueError(f"this model is {why}")
    if not model.sampler.process.has_prior:
        raise ValueError(
            f"this model's process, {type(model.sampler.process).__name__}, does not remove all information at T, so "
            f"samples need real images: choose {tasks_with_images(model)}"
        )
    if model.sample_condition.needs_images:
        name = type(model.sample_condition).__name__
        raise ValueError(f"this model is conditioned on real images ({name}): choose {tasks_with_images(model)}")


def tasks_with_images(model: DiffusionModel) -> str:
    """The tasks that give the real images that samples need; "" if they need none."""
    if not model.sampler.process.has_prior:
        return "task=restoration"
    if not model.sample_condition.needs_images:
        return ""
    return getattr(model.sample_condition, "tasks", "task=upsample or task=cascade")  # a combination does not say them


def no_samples(network: nn.Module) -> str | None:
    """What a network is that generates no images, and what it is for: "a classifier, which ..."; None for others."""
    return getattr(network, "no_samples", None)


def do_nothing(state: State) -> None:
    """The default of `on_sampling_step`; a named function, so that a model can be pickled."""
