"""One diffusion model in training: it joins network, loss, sampler and averages, and holds no formula."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from ddpm.base import check
from ddpm.base.rng import Draws, Rng
from ddpm.base.types import Batch, Cond, LossTerms
from ddpm.checkpoint.layout import VERSION
from ddpm.diffusion.condition import Condition, partly_hidden
from ddpm.diffusion.denoiser import Denoiser, NetworkDenoiser
from ddpm.diffusion.losses import Loss
from ddpm.diffusion.objective import Objective
from ddpm.diffusion.samplers.base import Sampler, State
from ddpm.diffusion.self_condition import SelfConditioned
from ddpm.diffusion.timesteps import LossAware
from ddpm.model.codec import Codec
from ddpm.model.ema import WeightAverages
from ddpm.training import sharding
from ddpm.training.optimizer import MakeOptimizer


class DiffusionModule(LightningModule):
    """image_shape: `(C, H, W)` of the images. wrap: what the denoiser is wrapped in for sampling (guidance, clipping).

    condition: what the network is told in training. asked: what samples are asked for, which is the same unless a
    classifier guides a network that is told nothing. guides: networks of other models that guide the sampling, no part
    of this one nor of its checkpoints. config: plain containers, stored in each checkpoint, from which the module can
    be built again.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        loss: Loss,
        sampler: Sampler,
        wrap: Callable[[Denoiser], Denoiser],
        codec: Codec,
        condition: Condition,
        asked: Condition,
        averages: WeightAverages,
        make_optimizer: MakeOptimizer,
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
        self.loss = loss
        self.sampler = sampler
        self.wrap = wrap
        self.codec = codec
        self.condition = condition
        self.asked = asked
        self.guides = tuple(guide.requires_grad_(False).eval() for guide in guides)
        self.make_optimizer = make_optimizer
        self.image_shape = image_shape
        self.seed = seed
        self.config = config
        self.train_rng = Rng(seed, "train", compiled=compile)
        self.val_rng = Rng(seed, "val", compiled=compile)
        self.sample_rng = Rng(seed, "sample", compiled=compile)
        self.predict_weights = self.best_weights
        if isinstance(loss.timesteps, nn.Module):
            self.timesteps = loss.timesteps  # so that what they have seen moves and is saved with the weights
        self.observed: list[Tensor] = []  # since the last optimizer step
        self.register_buffer("stands_still", torch.zeros(()), persistent=False)  # 1 after a gradient that is no number
        # Buffers are constants here. Synchronised at each forward they would hang a validation of unequal shares.
        self._ddp_params_and_buffers_to_ignore = [name for name, _ in self.named_buffers()]
        self.watch_sampling: Callable[[State], None] = unwatched
        self.grad_norm: Tensor | None = None
        self.is_updating = False  # weights, moments and averages, which are then of no one step

    # Networks

    def _apply(self, move: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """The guides go where the module goes."""
        for guide in self.guides:
            guide._apply(move, recurse)
        return super()._apply(move, recurse)

    def configure_model(self) -> None:
        """trainer=fsdp gives the module a mesh of processes to spread over."""
        if self.device_mesh is not None:
            for network in (self.network, *self.averages.copies):
                sharding.shard(network, self.device_mesh["data_parallel"])

    def weights(self, name: str) -> nn.Module:
        """The network with the weights `raw`, `ema` (the first average) or `ema_DECAY`."""
        averages = {
            f"ema_{decay:g}": copy for decay, copy in zip(self.averages.decays, self.averages.copies, strict=True)
        }
        networks = {"raw": self.network, **({"ema": next(iter(averages.values()))} if averages else {}), **averages}
        if name not in networks:
            raise ValueError(f"weights must be one of {', '.join(networks)}, got {name!r}")
        return networks[name]

    def describe_weights(self, name: str) -> str:
        """The name with its decay, for the record: "ema 0.9999"."""
        return f"ema {self.averages.decays[0]:g}" if name == "ema" else name.replace("_", " ")

    @property
    def best_weights(self) -> str:
        """`ema` where there are averages, else `raw`."""
        return "ema" if self.averages.decays else "raw"

    @property
    def needs_images(self) -> bool:
        """Whether samples are made from real images: told of them, or begun at them."""
        return self.asked.needs_images or not self.sampler.process.has_prior

    def start(self, ids: Tensor, images: Tensor | None = None) -> Tensor:
        """x_T of the samples numbered `ids`: from the prior or, where there is none, `images` fully degraded."""
        process, draws = self.sampler.process, self.sample_rng.at(self.sampler.process.T, ids)
        if process.has_prior or images is None:
            return process.prior(self.latent_shape, draws)
        x0 = self.codec.encode(images)
        return process.apply(x0, process.draw(x0, draws), process.T)

    def sample(self, ids: Tensor, weights: str, cond: Cond | None = None, images: Tensor | None = None) -> Tensor:
        """Images `[B, C, H, W]` of the samples numbered `ids`, the same whatever batch they come in.

        images: real ones, where samples begin at them (see `needs_images`).
        """
        x = self.start(ids, images)
        for state in self.sampler.trajectory(self.denoiser(weights), x, self.sample_rng, ids, cond):
            x = state.x_t
            self.watch_sampling(state)
        return self.codec.decode(x)

    def use_for_prediction(self, weights: str, seed: int) -> None:
        """The weights (see `weights`; `best` are the averaged ones, if any) and the seed of predict_step."""
        name = self.best_weights if weights == "best" else weights
        self.weights(name)
        self.predict_weights = name
        self.sample_rng = replace(self.sample_rng, seed=check.non_negative_int("seed", seed))

    def denoiser(self, weights: str) -> Denoiser:
        """What samplers use: the network with these weights, wrapped."""
        return self.wrap(NetworkDenoiser(self.weights(weights), self.objective))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.codec.latent_shape(self.image_shape)

    # Steps

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Dropout is the one thing that draws from torch's own generator: it is seeded anew for each batch."""
        self.seed_dropout(self.current_epoch, batch_idx, self.global_rank)

    def seed_dropout(self, epoch: int, batch_idx: int, rank: int) -> None:
        place = f"{self.seed}/{epoch}/{batch_idx}/{rank}"
        torch.manual_seed(int.from_bytes(hashlib.blake2b(place.encode(), digest_size=7).digest(), "little"))

    def loss_terms(self, batch: Batch, epoch: int) -> LossTerms:
        draws = self.train_rng.at(epoch, batch["index"], batch["position"])
        cond = partly_hidden(self.condition, self.condition.of(batch), draws)
        return self.loss(self.trained_denoiser(self.network, draws), self.codec.encode(batch["image"]), cond, draws)

    def trained_denoiser(self, network: nn.Module, draws: Draws) -> NetworkDenoiser:
        """What a loss asks: a self-conditioned network is told its own answer half of the time."""
        if getattr(network, "self_condition", False):
            return SelfConditioned(network, self.objective, draws)
        return NetworkDenoiser(network, self.objective)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """total is weighted so that its mean is the loss; unweighted is the loss of each sample at its time."""
        terms = self.loss_terms(batch, self.current_epoch)
        total, unweighted = terms.weighted(terms.total), terms.total.detach()
        if isinstance(self.loss.timesteps, LossAware):
            self.observed.append(torch.stack([batch["position"].double(), terms.t.double(), unweighted.double()]))
        parts = {f"part/{name}": terms.weighted(part).detach() for name, part in terms.parts.items()}
        parts |= {f"unweighted/{name}": part.detach() for name, part in terms.parts.items()}
        return {"loss": total.mean(), "total": total.detach(), "unweighted": unweighted, "t": terms.t, **parts}

    def on_validation_start(self) -> None:
        sharding.gather(self.weights(self.best_weights))  # processes may differ by one batch

    def on_validation_end(self) -> None:
        sharding.release(self.weights(self.best_weights))

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss of the averaged weights at times and noise that are the same at every validation."""
        draws = self.val_rng.at(0, batch["index"], batch["position"])
        denoiser = self.trained_denoiser(self.weights(self.best_weights), draws)
        terms = self.loss(denoiser, self.codec.encode(batch["image"]), self.condition.of(batch), draws)
        return {"total": terms.total, "t": terms.t, **{f"part/{name}": part for name, part in terms.parts.items()}}

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Generation is a data set of sample numbers and what is asked of each: `batch["index"]` in, images out."""
        return self.sample(batch["index"], self.predict_weights, self.asked.of(batch), batch.get("image"))

    # Optimization

    def on_train_start(self) -> None:
        """The optimizer's settings are the configuration's, also where a resumed run was allowed to change them."""
        optimizer, schedule = self.optimizers(use_pl_optimizer=False), self.lr_schedulers()
        lr = optimizer.defaults["lr"]
        for group in optimizer.param_groups:
            group |= {**optimizer.defaults, "initial_lr": lr, "lr": lr * schedule.lr_lambdas[0](schedule.last_epoch)}
        schedule.base_lrs = [lr for _ in optimizer.param_groups]

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer, schedule = self.make_optimizer(self.network.parameters())
        if optimizer.defaults.get("fused"):
            optimizer.found_inf = self.stands_still  # it then makes no step, and nobody has to wait for the device
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the norm, and keeps what it was for the log. After one that is no number the optimizer stands still."""
        parameters = list(self.network.parameters())
        self.grad_norm = sharding.whole(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        self.stands_still.logical_or_(~torch.isfinite(self.grad_norm))
        if not optimizer.defaults.get("fused") and self.stands_still:  # this one has to wait for the device
            optimizer.zero_grad(set_to_none=True)
            return
        if gradient_clip_val:
            nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, self.grad_norm)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.is_updating = True

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.averages.update(self.network)
        if self.observed:
            self.learn_times()
        self.is_updating = False

    def learn_times(self) -> None:
        """Shows the losses of a whole step, of all ranks and micro-batches in the data's order, to the times."""
        everyone = self.all_gather(torch.cat(self.observed, dim=1)).view(-1, 3, sum(o.shape[1] for o in self.observed))
        position, t, loss = everyone.transpose(0, 1).flatten(1)
        order = position.argsort()
        self.loss.timesteps.observe(t[order].long(), loss[order])
        self.observed = []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"config": self.config, "format": VERSION}


def unwatched(state: State) -> None:
    """The default of `watch_sampling`, by name so that a module can be sent to another process."""
