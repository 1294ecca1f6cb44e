"""One diffusion model in training: what Lightning needs to know of it, and no formula."""

import hashlib
from collections.abc import Callable
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from ddpm.base.rng import Draws, Rng
from ddpm.base.types import Batch, LossTerms
from ddpm.checkpoint.layout import VERSION
from ddpm.diffusion.conditions.base import drop_conditions
from ddpm.diffusion.denoiser import NetworkDenoiser, SelfConditioned
from ddpm.diffusion.losses import Loss
from ddpm.diffusion.time_sampler import LossAware
from ddpm.model.diffusion_model import DiffusionModel
from ddpm.training import sharding
from ddpm.training.optimizer import MakeOptimizer


class DiffusionModule(LightningModule):
    """model: what is trained. The module holds its network and averages under their own names, so that a checkpoint's
    `network.*` and `averages.*` are those of the model alone."""

    def __init__(
        self, model: DiffusionModel, loss: Loss, make_optimizer: MakeOptimizer, seed: int, compile: bool
    ) -> None:
        super().__init__()
        self.network = model.network
        self.averages = model.averages
        self.held = (model,)  # in a tuple, which registers nothing
        self.loss = loss
        self.make_optimizer = make_optimizer
        self.seed = seed
        self.train_rng = Rng(seed, "train", compiled=compile)
        self.val_rng = Rng(seed, "val", compiled=compile)
        if isinstance(loss.time_sampler, nn.Module):
            self.time_sampler = loss.time_sampler  # so that what they have seen moves and is saved with the weights
        self.observed: list[Tensor] = []  # since the last optimizer step
        self.register_buffer("skip_steps", torch.zeros(()), persistent=False)  # 1 after a gradient that is no number
        # Buffers are constants here. Synchronised at each forward they would hang a validation of unequal shares.
        self._ddp_params_and_buffers_to_ignore = [name for name, _ in self.named_buffers()]
        self.grad_norm: Tensor | None = None
        self.is_updating = False  # weights, moments and averages, which are then of no one step

    @property
    def model(self) -> DiffusionModel:
        return self.held[0]

    def _apply(self, move: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """The networks that guide the model's sampling go where the module goes."""
        for guide in self.model.guides:
            guide._apply(move, recurse)
        return super()._apply(move, recurse)

    def configure_model(self) -> None:
        """trainer=fsdp gives the module a mesh of processes to spread over."""
        if self.device_mesh is not None:
            for network in (self.network, *self.averages.copies):
                sharding.shard(network, self.device_mesh["data_parallel"])

    # Steps

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Dropout is the one thing that draws from torch's own generator: it is seeded anew for each batch."""
        self.seed_dropout(self.current_epoch, batch_idx, self.global_rank)

    def seed_dropout(self, epoch: int, batch_idx: int, rank: int) -> None:
        place = f"{self.seed}/{epoch}/{batch_idx}/{rank}"
        torch.manual_seed(int.from_bytes(hashlib.blake2b(place.encode(), digest_size=7).digest(), "little"))

    def loss_terms(self, batch: Batch, epoch: int) -> LossTerms:
        draws = self.train_rng.at(epoch, batch["index"], batch["position"])
        cond = drop_conditions(self.model.condition, self.model.condition.of(batch), draws)
        x0 = self.model.codec.encode(batch["image"])
        return self.loss(self.trained_denoiser(self.network, draws), x0, cond, draws)

    def trained_denoiser(self, network: nn.Module, draws: Draws) -> NetworkDenoiser:
        """The denoiser of a loss: a self-conditioned network gets its own prediction half of the time."""
        if getattr(network, "self_condition", False):
            return SelfConditioned(network, self.model.objective, draws)
        return NetworkDenoiser(network, self.model.objective)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """total is weighted so that its mean is the loss; unweighted is the loss of each sample at its time."""
        terms = self.loss_terms(batch, self.current_epoch)
        total, unweighted = terms.weighted(terms.total), terms.total.detach()
        if isinstance(self.loss.time_sampler, LossAware):
            self.observed.append(torch.stack([batch["position"].double(), terms.t.double(), unweighted.double()]))
        parts = {f"part/{name}": terms.weighted(part).detach() for name, part in terms.parts.items()}
        parts |= {f"unweighted/{name}": part.detach() for name, part in terms.parts.items()}
        return {"loss": total.mean(), "total": total.detach(), "unweighted": unweighted, "t": terms.t, **parts}

    def on_validation_start(self) -> None:
        sharding.gather(self.model.weights(self.model.best_weights))  # processes may differ by one batch

    def on_validation_end(self) -> None:
        sharding.release(self.model.weights(self.model.best_weights))

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss of the averaged weights at times and noise that are the same at every validation."""
        draws = self.val_rng.at(0, batch["index"], batch["position"])
        denoiser = self.trained_denoiser(self.model.weights(self.model.best_weights), draws)
        terms = self.loss(denoiser, self.model.codec.encode(batch["image"]), self.model.condition.of(batch), draws)
        return {"total": terms.total, "t": terms.t, **{f"part/{name}": part for name, part in terms.parts.items()}}

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
            optimizer.found_inf = self.skip_steps  # it then makes no step, and nobody has to wait for the device
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the norm, and keeps what it was for the log. After a NaN the optimizer skips its step."""
        parameters = list(self.network.parameters())
        self.grad_norm = sharding.full_tensor(
            nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        )
        self.skip_steps.logical_or_(~torch.isfinite(self.grad_norm))
        if not optimizer.defaults.get("fused") and self.skip_steps:  # this one has to wait for the device
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
        self.loss.time_sampler.observe(t[order].long(), loss[order])
        self.observed = []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"config": self.model.config, "format": VERSION}
