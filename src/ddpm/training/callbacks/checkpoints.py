"""Writes checkpoints: every so many steps, at the end, when one is the best so far, and when the run is interrupted."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from ddpm import check
from ddpm.checkpoint import folder as files
from ddpm.training.logs import ends_step
from ddpm.training.loop_counts import batches, respread, settled
from ddpm.training.module import DiffusionModule

EVALUATION = "eval/"  # what numbers of samples are logged under


class Checkpoints(Checkpoint):
    """RUN/checkpoints/STEP.ckpt, with last.ckpt and best.ckpt as links.

    every_n_steps: optimizer steps between two. last: keep so many of the newest. keep_every_n_steps: keep those of
    every so many steps besides, None for no others. best: a logged number whose best checkpoint is kept too, written
    after each validation, or evaluation of samples, that improves it; mode: whether `min` or `max` of it is best.

    Every checkpoint holds the run as it was at the end of the step's batch. One that was written before or during the
    step's validation says so, and the resumed run validates first: Lightning by itself would leave it out.
    """

    def __init__(
        self, every_n_steps: int, last: int, keep_every_n_steps: int | None, best: str | None, mode: str
    ) -> None:
        self.every_n_steps = check.positive_int("checkpoint_every_n_steps", every_n_steps)
        self.last = check.positive_int("keep.last", last)
        self.keep_every_n_steps = keep_every_n_steps
        if keep_every_n_steps is not None:
            check.positive_int("keep.every_n_steps", keep_every_n_steps)
        self.metric = best
        self.mode = check.one_of("keep.mode", mode, ("min", "max"))
        self.best: dict[str, float] = {}  # step and value
        self.saved_step = -1
        self.trained = False
        self.noted_step = -1
        self.validation_is_due = False  # of the noted step
        self.loops: dict[str, Any] = {}  # Lightning's, as they were at the end of the noted step's batch

    # When

    def on_train_batch_end(
        self, trainer: Trainer, module: DiffusionModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if ends_step(trainer, batch_idx):
            step = trainer.global_step
            self.note(trainer)
            if step % self.every_n_steps == 0 or step == trainer.max_steps:
                self.save(trainer)

    def note(self, trainer: Trainer) -> None:
        """What is to be remembered of a step before its validation begins, which moves Lightning's counts."""
        if self.noted_step == trainer.global_step:
            return
        self.noted_step = trainer.global_step
        loop = trainer.fit_loop.epoch_loop
        self.validation_is_due = loop._should_check_val_fx(trainer.fit_loop._data_fetcher) and validates(trainer)
        ends = trainer.should_stop or loop.batch_progress.is_last_batch  # what follows counts the epoch as a whole one
        self.loops = copy.deepcopy(trainer.fit_loop.state_dict()) if self.validation_is_due or ends else {}

    def on_validation_end(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.validation_is_due = False
        if self.metric is not None and not self.metric.startswith(EVALUATION):
            self.consider(trainer, {name: value.item() for name, value in trainer.callback_metrics.items()})

    def on_evaluation_end(self, trainer: Trainer, numbers: Mapping[str, float]) -> None:
        """Called by whoever has measured samples, on all ranks with the same numbers."""
        if self.metric is not None and self.metric.startswith(EVALUATION):
            self.consider(trainer, numbers)

    def consider(self, trainer: Trainer, numbers: Mapping[str, float]) -> None:
        """Keeps the checkpoint of this step if it is the best so far."""
        assert self.metric is not None
        if self.metric not in numbers:
            known = ", ".join(sorted(numbers)) or "none"
            raise ValueError(f"keep.best must be one of the logged numbers ({known}), got {self.metric!r}")
        value = numbers[self.metric]
        sign = 1 if self.mode == "min" else -1
        if not self.best or sign * value < sign * self.best["value"]:
            self.best = {"step": trainer.global_step, "value": value}
            self.saved_step = -1  # written again, now that it knows that it is the best
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.save(trainer)
        if trainer.strategy.broadcast(trainer.strategy.checkpoint_io.failure):
            raise OSError(f"the last checkpoint could not be written; {self.what_is_left(trainer)}")

    def on_train_start(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.trained = True
        self.refuse_best_of_nothing(trainer)
        self.validate_if_due(trainer)

    def refuse_best_of_nothing(self, trainer: Trainer) -> None:
        if self.metric is None:
            return
        if not self.metric.startswith(EVALUATION):
            if not validates(trainer):
                raise ValueError(f"keep.best={self.metric} needs held-out images to validate on: set data.num_val")
        elif not any(hasattr(callback, "evaluator") for callback in trainer.callbacks):
            raise ValueError(f"keep.best={self.metric} needs samples to be measured in training: choose metric=...")

    def on_fit_end(self, trainer: Trainer, module: DiffusionModule) -> None:
        """Of a run that was killed in its last validation, no step is left to train."""
        if not self.trained and self.validation_is_due:
            module.to(trainer.strategy.root_device)  # Lightning has put it on the CPU by now
            self.validate_if_due(trainer)

    def validate_if_due(self, trainer: Trainer) -> None:
        if self.validation_is_due:
            loop = trainer.fit_loop.epoch_loop.val_loop
            loop.restarting = False
            trainer.validating = True
            loop.run()
            trainer.training = True

    # What

    def on_save_checkpoint(self, trainer: Trainer, module: DiffusionModule, checkpoint: dict[str, Any]) -> None:
        self.note(trainer)  # a picture of this step may have been interrupted
        checkpoint["loops"]["fit_loop"] = settled(self.loops or checkpoint["loops"]["fit_loop"])
        checkpoint["validation_is_due"] = self.validation_is_due
        checkpoint["batches"] = batches(trainer)

    def on_load_checkpoint(self, trainer: Trainer, module: DiffusionModule, checkpoint: dict[str, Any]) -> None:
        self.validation_is_due = checkpoint["validation_is_due"]
        respread(checkpoint, batches(trainer), trainer.datamodule.num_train)
        self.loops = copy.deepcopy(checkpoint["loops"]["fit_loop"])
        self.noted_step = self.saved_step = checkpoint["global_step"]

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = state["best"]

    # Writing

    def save(self, trainer: Trainer) -> None:
        """Called on all ranks. If the disk is full the run goes on, with a warning and the last good checkpoint."""
        if trainer.global_step == self.saved_step:
            return
        self.saved_step = trainer.global_step
        for logger in trainer.loggers:
            logger.save()  # what was logged up to this step is not logged again by a run that resumes here
        trainer.save_checkpoint(files.path_of_step(folder(trainer), trainer.global_step))
        self.tidy(trainer)

    @rank_zero_only
    def tidy(self, trainer: Trainer) -> None:
        failure = trainer.strategy.checkpoint_io.failure
        if failure:
            rank_zero_warn(
                f"step {trainer.global_step}: no checkpoint could be written ({failure}); {self.what_is_left(trainer)}"
            )
            return
        try:
            self.link_and_prune(trainer)
        except OSError as error:
            rank_zero_warn(f"step {trainer.global_step}: the checkpoint is written, but not the links to it: {error}")

    def link_and_prune(self, trainer: Trainer) -> None:
        where = folder(trainer)
        files.point(where / "last.ckpt", files.path_of_step(where, trainer.global_step))
        if self.best and files.path_of_step(where, int(self.best["step"])).exists():
            files.point(where / "best.ckpt", files.path_of_step(where, int(self.best["step"])))
        for path in files.listed(where):
            if files.step_of(path) not in self.kept(where):
                files.remove(path)

    def kept(self, where: Path) -> set[int]:
        steps = [files.step_of(path) for path in files.listed(where)]
        kept = set(steps[: self.last])
        if self.keep_every_n_steps is not None:
            kept |= {step for step in steps if step % self.keep_every_n_steps == 0}
        return kept | ({int(self.best["step"])} if self.best else set())

    def what_is_left(self, trainer: Trainer) -> str:
        left = last_good(trainer)
        return f"the last good checkpoint is {left}" if left else "there is no earlier one"


def validates(trainer: Trainer) -> bool:
    """Whether there is anything to validate on."""
    return bool(trainer.enable_validation) and sum(trainer.num_val_batches) > 0


def folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / "checkpoints"


def last_good(trainer: Trainer) -> Path | None:
    return next((path for path in files.listed(folder(trainer)) if files.damage(path) is None), None)
