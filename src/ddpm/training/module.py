"""The LightningModule of a diffusion model in training. It contains no formulas of diffusion."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from ddpm.base.rng import Draws, Rng
from ddpm.base.types import Batch, LossTerms
from ddpm.checkpoint.layout import VERSION
from ddpm.diffusion.conditions.base import drop_conditions
from ddpm.diffusion.denoiser import NetworkDenoiser, SelfConditioned
from ddpm.diffusion.losses import AdversarialLoss, Example, Loss
from ddpm.diffusion.time_sampler import LossAware
from ddpm.model.diffusion_model import DiffusionModel
from ddpm.training import sharding
from ddpm.training.turn import Turn

StepOutput = dict[str, Any]


class DiffusionModule(LightningModule):
    """model: the model to train. Its network and averages are attributes of the module, so that a checkpoint has
    `network.*` and `averages.*`. turns: one turn; `AlternatingModule` trains several."""

    def __init__(
        self, model: DiffusionModel, loss: Loss | AdversarialLoss, turns: Sequence[Turn], seed: int, compile: bool
    ) -> None:
        super().__init__()
        self.network = model.network
        self.averages = model.averages
        self.held = (model,)  # in a tuple, which registers nothing
        self.loss = loss
        self.turns = tuple(turns)
        for turn in self.turns:
            self.add_module(turn.name, turn.network)
        self.seed = seed
        self.train_rng = Rng(seed, "train", compiled=compile)
        self.val_rng = Rng(seed, "val", compiled=compile)
        if isinstance(loss.time_sampler, nn.Module):
            self.time_sampler = loss.time_sampler  # so that its buffers are moved and saved with the weights
        self.observed: list[Tensor] = []  # since the last optimizer step
        self.register_buffer("skip_steps", torch.zeros(()), persistent=False)  # 1 after a NaN or infinite gradient
        # Buffers are constants. Synchronizing them at each forward would hang validation with unequal shares.
        self._ddp_params_and_buffers_to_ignore = [name for name, _ in self.named_buffers()]
        self.grad_norms: dict[str, Tensor] = {}  # of the last step, by turn
        self.scaler: torch.amp.GradScaler | None = None  # loss scaling, with precision=16-mixed
        self.overflowed = False  # of the last gradient under loss scaling, which then skips the step
        self.is_updating = False  # whether weights, moments and averages are of different steps

    @property
    def model(self) -> DiffusionModel:
        return self.held[0]

    def _apply(self, move: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the frozen networks, and those of the loss, together with the module."""
        for network in (*self.model.frozen, *getattr(self.loss, "fixed_networks", ())):
            network._apply(move, recurse)
        return super()._apply(move, recurse)

    def setup(self, stage: str) -> None:
        self.scaler = getattr(self.trainer.precision_plugin, "scaler", None)

    def configure_model(self) -> None:
        """Shard the networks over the mesh of processes with trainer=fsdp."""
        if self.device_mesh is not None:
            for network in (self.network, *self.averages.copies):
                sharding.shard(network, self.device_mesh["data_parallel"])

    @property
    def own_turn(self) -> Turn:
        """The turn of the model's network, whose optimizer steps are those of the run."""
        return next(turn for turn in self.turns if turn.network is self.network)

    # Steps

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed torch's global generator for each batch. Only dropout draws from it."""
        self.seed_dropout(self.current_epoch, batch_idx, self.global_rank)

    def seed_dropout(self, epoch: int, batch_idx: int, rank: int, turn: str = "") -> None:
        place = f"{self.seed}/{epoch}/{batch_idx}/{rank}{turn}"
        torch.manual_seed(int.from_bytes(hashlib.blake2b(place.encode(), digest_size=7).digest(), "little"))

    def loss_terms(self, turn: Turn, batch: Batch, epoch: int, step: int) -> LossTerms:
        """step: optimizer steps done before this one."""
        draws = self.train_rng.at(epoch, batch["index"], batch["position"])
        if turn is not self.own_turn:
            draws = draws.scope(turn.name)
        cond = self.model.condition.of({**batch, "epoch": torch.tensor(epoch)})
        cond = drop_conditions(self.model.condition, cond, draws)
        example = Example(self.model.codec.encode(batch, draws.scope("codec")), cond, draws, step)
        return turn.loss(self.trained_denoiser(self.network, draws), example)

    def trained_denoiser(self, network: nn.Module, draws: Draws) -> NetworkDenoiser:
        """The denoiser of a loss: a self-conditioned network gets its own prediction half of the time."""
        if getattr(network, "self_condition", False):
            return SelfConditioned(network, self.model.objective, draws)
        return NetworkDenoiser(network, self.model.objective)

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        """The loss, and under "turns" the values of `detached` for each turn."""
        terms = self.loss_terms(self.own_turn, batch, self.current_epoch, self.trainer.global_step)
        self.observe(batch, terms)
        return {"loss": terms.weighted(terms.total).mean(), "turns": {self.own_turn.name: detached(terms)}}

    def observe(self, batch: Batch, terms: LossTerms) -> None:
        """Store the losses of a micro-batch for a loss-aware time sampler."""
        if isinstance(self.loss.time_sampler, LossAware):
            seen = batch["position"].double(), terms.t.double(), terms.total.detach().double()
            self.observed.append(torch.stack(seen))

    def on_validation_start(self) -> None:
        sharding.gather(self.model.weights(self.model.best_weights))  # processes may differ by one batch

    def on_validation_end(self) -> None:
        sharding.release(self.model.weights(self.model.best_weights))

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss of the averaged weights, with the same times and noise in every validation."""
        draws = self.val_rng.at(0, batch["index"], batch["position"])
        denoiser = self.trained_denoiser(self.model.weights(self.model.best_weights), draws)
        x0, cond = self.model.codec.encode(batch, draws.scope("codec")), self.model.condition.of(batch)
        terms = self.own_turn.loss(denoiser, Example(x0, cond, draws, self.trainer.global_step))
        return {"total": terms.total, "t": terms.t, **{f"part/{name}": part for name, part in terms.parts.items()}}

    # Optimization

    def on_train_start(self) -> None:
        """Set the optimizers' settings to those of the configuration, which a resumed run may have changed."""
        for optimizer, configured in zip(self.trainer.optimizers, self.trainer.lr_scheduler_configs, strict=True):
            lr, schedule = optimizer.defaults["lr"], configured.scheduler
            now = lr * schedule.lr_lambdas[0](schedule.last_epoch)
            for group in optimizer.param_groups:
                group |= {**optimizer.defaults, "initial_lr": lr, "lr": now}
            schedule.base_lrs = [lr for _ in optimizer.param_groups]

    def configure_optimizers(self) -> Any:
        return [self.configure_optimizer(turn) for turn in self.turns]

    def configure_optimizer(self, turn: Turn) -> dict[str, Any]:
        """Optimizer and schedule; not fused under loss scaling, where gradients are unscaled before clipping."""
        unfused = self.scaler is not None and getattr(turn.make_optimizer, "keywords", {}).get("fused")
        optimizer, schedule = turn.make_optimizer(turn.network.parameters(), **({"fused": False} if unfused else {}))
        if optimizer.defaults.get("fused"):
            optimizer.found_inf = self.skip_steps  # skips the step without synchronization with the device
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: float | None = None, **_: Any) -> None:
        self.clip_gradients_of(self.own_turn, optimizer, gradient_clip_val)

    def clip_gradients_of(self, turn: Turn, optimizer: torch.optim.Optimizer, largest_norm: float | None) -> None:
        """Clip the gradient norm, and keep its original value for the log. After a NaN, the optimizer skips its step.

        An overflow under loss scaling is not an error as long as the scale can be halved.
        """
        parameters = list(turn.network.parameters())
        norm = sharding.full_tensor(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        self.grad_norms[turn.name] = norm
        if self.scaler is not None:
            self.overflowed = not torch.isfinite(norm)
            if self.overflowed and self.scaler.get_scale() > 1:
                return
        self.skip_steps.logical_or_(~torch.isfinite(norm))
        if not optimizer.defaults.get("fused") and self.skip_steps:  # synchronizes with the device
            optimizer.zero_grad(set_to_none=True)
            return
        if largest_norm:
            nn.utils.clip_grads_with_norm_(parameters, largest_norm, norm)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.is_updating = True

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.after_own_step()
        self.is_updating = False

    def after_own_step(self) -> None:
        """Update averages and time sampler after a step of the model's network."""
        if not self.overflowed:
            self.averages.update(self.network)
        if self.observed:
            self.learn_times()

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if not self.overflowed:
            scheduler.step()

    def learn_times(self) -> None:
        """Give the time sampler the losses of a step from all ranks and micro-batches, in the order of the data."""
        everyone = self.all_gather(torch.cat(self.observed, dim=1)).view(-1, 3, sum(o.shape[1] for o in self.observed))
        position, t, loss = everyone.transpose(0, 1).flatten(1)
        order = position.argsort()
        self.loss.time_sampler.observe(t[order].long(), loss[order])
        self.observed = []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"config": self.model.config, "format": VERSION}


def detached(terms: LossTerms) -> dict[str, Tensor]:
    """Values for callbacks, `[B]` each. total: weighted so that its mean is the loss. unweighted: the loss of each
    sample at its time t. part/NAME and unweighted/NAME: the same for the parts."""
    parts = {f"part/{name}": terms.weighted(part).detach() for name, part in terms.parts.items()}
    parts |= {f"unweighted/{name}": part.detach() for name, part in terms.parts.items()}
    return {"total": terms.weighted(terms.total).detach(), "unweighted": terms.total.detach(), "t": terms.t, **parts}
