"""Several networks in training, in turns. Lightning's own loop trains one."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn

from ddpm.base.types import Batch
from ddpm.training.logs import ends_step
from ddpm.training.module import DiffusionModule, StepOutput, detached
from ddpm.training.turn import Turn


class AlternatingModule(DiffusionModule):
    """A step waits until its last micro-batch is there; then each turn sees all of them before the next one begins.

    Lightning calls this manual optimization, for which it refuses accumulation and clipping and counts the steps of
    every optimizer. So both are done here, and only the steps of the model's network are shown to it. Gradients are
    averaged over the processes once a turn, since DDP's own buckets expect one backward pass through all weights.
    """

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.automatic_optimization = False  # after Lightning has looked whether accumulation and clipping are set
        self.micro_batches: list[tuple[Batch, int]] = []

    def on_train_start(self) -> None:
        super().on_train_start()
        batches, accumulated = self.trainer.num_training_batches, self.trainer.accumulate_grad_batches
        if batches % accumulated:
            raise ValueError(
                f"an epoch of {batches} micro-batches (trainer.limit_train_batches) does not divide by "
                f"trainer.accumulate_grad_batches={accumulated}, and several networks are trained in whole steps only"
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
        """One optimizer step of one network; what `detached` says of all micro-batches together."""
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
    """The gradients, in one transfer. To be called on all processes."""
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    if num == 1 or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    pieces = flat.div_(num).split([gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))
