"""Training of several networks in turns, by manual optimization."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn

from ddpm.base.types import Batch
from ddpm.training.logs import ends_step
from ddpm.training.module import DiffusionModule, StepOutput, detached
from ddpm.training.turn import Turn


class AlternatingModule(DiffusionModule):
    """A step collects all its micro-batches. Then each turn uses all of them before the next turn begins.

    With manual optimization, Lightning supports neither accumulation nor clipping, and counts the steps of all
    optimizers. So this class does both, and only the steps of the model's network are reported to Lightning. Gradients
    are averaged over processes once per turn, since DDP expects one backward pass through all weights.
    """

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.automatic_optimization = False  # only now, after Lightning's checks of accumulation and clipping
        self.micro_batches: list[tuple[Batch, int]] = []

    def on_train_start(self) -> None:
        super().on_train_start()
        batches, accumulated = self.trainer.num_training_batches, self.trainer.accumulate_grad_batches
        if batches % accumulated:
            raise ValueError(
                f"an epoch of {batches} micro-batches (trainer.limit_train_batches) must be divisible by "
                f"trainer.accumulate_grad_batches={accumulated}, since several networks are trained in complete steps"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> StepOutput:
        self.micro_batches.append((batch, batch_idx))
        if not ends_step(self.trainer, batch_idx):
            return {"turns": {}}
        self.is_updating = True
        step, numbers = self.trainer.global_step, range(len(self.turns))
        output = {self.turns[number].name: self.take_turn(number, step) for number in numbers}
        if self.scaler is not None:
            self.scaler.update()
        self.micro_batches = []
        self.is_updating = False
        return {"turns": output}

    def take_turn(self, number: int, step: int) -> dict[str, Tensor]:
        """One optimizer step of one network. Returns the values of `detached` over all micro-batches."""
        turn, optimizer = self.turns[number], self.trainer.optimizers[number]
        with self.frozen_but(turn):
            terms = [self.backward_of(turn, batch, batch_idx, step) for batch, batch_idx in self.micro_batches]
        average_over_processes(turn.network, self.trainer.world_size)
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
        self.clip_gradients_of(turn, optimizer, self.trainer.gradient_clip_val)
        counted = self.trainer.strategy._lightning_optimizers[number] if turn is self.own_turn else None
        if counted:
            counted._on_before_step()
        if self.scaler is not None:
            self.scaler.step(optimizer)
        else:
            optimizer.step()
        if counted:
            counted._on_after_step()
            self.after_own_step()
        self.lr_scheduler_step(self.trainer.lr_scheduler_configs[number].scheduler, None)
        optimizer.zero_grad(set_to_none=True)
        return {name: torch.cat([each[name] for each in terms]) for name in terms[0]}

    def backward_of(self, turn: Turn, batch: Batch, batch_idx: int, step: int) -> dict[str, Tensor]:
        self.seed_dropout(self.current_epoch, batch_idx, self.global_rank, turn.name)
        terms = self.loss_terms(turn, batch, self.current_epoch, step)
        if turn is self.own_turn:
            self.observe(batch, terms)
        loss = terms.weighted(terms.total).mean() / len(self.micro_batches)
        with torch.autocast(self.device.type, enabled=False):
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        return detached(terms)

    @contextmanager
    def frozen_but(self, turn: Turn) -> Iterator[None]:
        others = [p for each in self.turns if each is not turn for p in each.network.parameters() if p.requires_grad]
        for parameter in others:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in others:
                parameter.requires_grad_(True)


def average_over_processes(network: nn.Module, num: int) -> None:
    """Average the gradients over processes in one transfer; to be called on all processes."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    if num == 1 or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    pieces = flat.div_(num).split([gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))
