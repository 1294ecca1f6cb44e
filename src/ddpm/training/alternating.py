"""Training of several networks in turns, by manual optimization."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ddpm.base.types import Batch
from ddpm.training.balanced import BalancedGradients, average_over_processes
from ddpm.training.logs import ends_step
from ddpm.training.module import DiffusionModule, StepOutput, detached
from ddpm.training.turn import Turn

BALANCE = "part/balance"
"""The weight of the balanced term of a loss, for the log; NaN where it is not due."""


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
        apart = BalancedGradients(turn.network)
        with self.frozen_but(turn):
            terms = [self.backward_of(turn, *each, step, apart) for each in self.micro_batches]
        self.merge_gradients(turn, apart, terms)
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

    def merge_gradients(self, turn: Turn, apart: BalancedGradients, terms: list[dict[str, Tensor]]) -> None:
        """Average the gradients over processes, with those of the balanced term, whose weight is then in `terms`."""
        num = self.trainer.world_size
        average_over_processes([p.grad for p in turn.network.parameters() if p.grad is not None], num)
        if apart.term is not None:
            weight = apart.merge(num, 1.0 if self.scaler is None else self.scaler.get_scale())
            for each in terms:
                each[BALANCE] = weight.expand(len(each["total"]))

    def backward_of(
        self, turn: Turn, batch: Batch, batch_idx: int, step: int, apart: BalancedGradients
    ) -> dict[str, Tensor]:
        self.seed_dropout(self.current_epoch, batch_idx, self.global_rank, turn.name)
        terms = self.loss_terms(turn, batch, self.current_epoch, step)
        if turn is self.own_turn:
            self.observe(batch, terms)
        found = detached(terms)
        with torch.autocast(self.device.type, enabled=False):
            if terms.balanced is not None:
                found[BALANCE] = torch.full_like(terms.total, torch.nan).detach()
                if terms.balanced.values is not None:
                    apart.add(terms.balanced, self.scaled(terms.weighted(terms.balanced.values)))
            self.scaled(terms.weighted(terms.total)).backward()
        return found

    def scaled(self, values: Tensor) -> Tensor:
        """The share of a micro-batch in the loss of the step, under loss scaling times the scale. values: `[B]`."""
        loss = values.mean() / len(self.micro_batches)
        return loss if self.scaler is None else self.scaler.scale(loss)

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
