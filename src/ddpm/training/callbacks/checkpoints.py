"""Writes checkpoints: every n steps, at the end, when one is the best so far, and when the run is interrupted."""

import copy
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
from torch import Tensor
from torch.distributed import distributed_c10d

from ddpm.base import check
from ddpm.base.progress import stage
from ddpm.checkpoint import folder as files
from ddpm.training.logs import ends_step
from ddpm.training.loop_counts import batches, normalize_counts, respread
from ddpm.training.module import DiffusionModule
from ddpm.training.sums import RunningSums

EVALUATION = "eval/"  # prefix of logged values of samples


class Checkpoints(Checkpoint):
    """RUN/checkpoints/STEP.ckpt, with last.ckpt and best.ckpt as links.

    every_n_steps: optimizer steps between checkpoints. last: number of newest checkpoints to keep. keep_every_n_steps:
    also keep those at multiples of this number; None: no others. best: a logged number whose best checkpoint is kept
    too, written after each validation or evaluation that improves it. mode: whether its `min` or `max` is best.

    A checkpoint contains the state at the end of the step's batch. If it is written before the validation of the step
    is complete, it records this, and the resumed run validates first; Lightning would omit the validation.
    """

    def __init__(
        self, every_n_steps: int, last: int, keep_every_n_steps: int | None, best: str | None, mode: str
    ) -> None:
        self.every_n_steps = check.positive_int("every_n_steps", every_n_steps)
        self.last = check.positive_int("last", last)
        self.keep_every_n_steps = check.positive_int_or_none("keep_every_n_steps", keep_every_n_steps)
        self.metric = best
        self.mode = check.one_of("mode", mode, ("min", "max"))
        self.best: dict[str, float] = {}  # step and value
        self.saved_step = -1
        self.trained = False
        self.noted_step = -1
        self.validation_is_due = False  # of the noted step
        self.loops: dict[str, Any] = {}  # Lightning's, at the end of the noted step's batch
        self.loader: dict[str, Any] = {}  # its position then
        self.sums: dict[RunningSums, Tensor | None] = {}  # their values then

    # Times of checkpoints

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if ends_step(trainer, batch_idx):
            step = trainer.global_step
            self.note(trainer)
            if step % self.every_n_steps == 0 or step == trainer.max_steps:
                self.save(trainer)

    def note(self, trainer: Trainer) -> None:
        """Store the state of a step before its validation or the next step changes the counts."""
        if self.noted_step == trainer.global_step:
            return
        self.noted_step = trainer.global_step
        loop = trainer.fit_loop.epoch_loop
        self.validation_is_due = loop._should_check_val_fx(trainer.fit_loop._data_fetcher) and validates(trainer)
        self.loops = trainer.fit_loop.state_dict()  # copies
        self.loader = trainer.datamodule.state_dict()
        self.sums = {each: each.sums for each in trainer.callbacks if isinstance(each, RunningSums)}

    def on_validation_end(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.validation_is_due = False
        if self.metric is not None and not self.metric.startswith(EVALUATION):
            self.consider(trainer, {name: value.item() for name, value in trainer.callback_metrics.items()})

    def on_evaluation_end(self, trainer: Trainer, numbers: Mapping[str, float]) -> None:
        """Called after an evaluation of samples, on all ranks with the same numbers."""
        if self.metric is not None and self.metric.startswith(EVALUATION):
            self.consider(trainer, numbers)

    def consider(self, trainer: Trainer, numbers: Mapping[str, float]) -> None:
        """Save the checkpoint of this step if it is the best so far."""
        assert self.metric is not None
        value = numbers[self.metric]
        sign = 1 if self.mode == "min" else -1
        if not math.isnan(value) and (not self.best or sign * value < sign * self.best["value"]):
            self.best = {"step": trainer.global_step, "value": value}
            self.saved_step = -1  # written again, with `best` updated
            self.save(trainer)

    def on_exception(self, trainer: Trainer, module: DiffusionModule, exception: BaseException) -> None:
        """Save the last completed step after an error, unless another rank was killed.

        Ranks do not wait for each other, since another one may be gone or fail too. So the sums of the first rank are
        used for all until the next log. A rank that fails sets a key in the store that all ranks share.
        """
        step, strategy = trainer.global_step, trainer.strategy
        lost = another_is_lost(exception)
        with suppress(RuntimeError, ValueError):  # a single process has no store
            store = distributed_c10d._get_default_store()
            lost = lost and not store.check(["ddpm/failed"])
            if not another_is_lost(exception):
                store.set("ddpm/failed", "")
        if lost or step <= max(self.saved_step, 0) or isinstance(exception, FloatingPointError):
            return
        progress = trainer.fit_loop.epoch_loop.batch_progress.current
        if step > self.noted_step and progress.processed == progress.ready:  # an earlier callback has failed
            self.note(trainer)
        if self.noted_step != step or module.is_updating or module.device_mesh is not None:
            return
        for callback, sums in self.sums.items():
            callback.sums = sums
        world = trainer.world_size
        vars(strategy).update(barrier=lambda *_: None, all_gather=lambda rows: rows.expand(world, *rows.shape))
        try:
            self.save(trainer)
            rank_zero_info(f"step {step}: saved {last_good(trainer)}. The same command with resume=auto continues")
        except Exception as error:
            rank_zero_warn(f"step {step} could not be saved: {error}")

    def on_train_end(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.save(trainer)
        if failure := trainer.strategy.broadcast(trainer.strategy.checkpoint_io.failure):
            raise OSError(f"the last checkpoint could not be written; {self.what_is_left(trainer)}") from failure

    def on_train_start(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.trained = True
        self.refuse_unknown_best(trainer)
        self.validate_if_due(trainer)

    def refuse_unknown_best(self, trainer: Trainer) -> None:
        """Custom callbacks list in `logged_names` what they log in validation."""
        if self.metric is None:
            return
        if not self.metric.startswith(EVALUATION) and not validates(trainer):
            raise ValueError(f"keep.best={self.metric} needs held-out images to validate on: set data.num_val")
        logged = [name for callback in trainer.callbacks for name in getattr(callback, "logged_names", ())]
        if self.metric.startswith(EVALUATION) and not any(name.startswith(EVALUATION) for name in logged):
            raise ValueError(f"keep.best={self.metric} needs evaluations in training: choose metric=...")
        check.one_of("keep.best", self.metric, logged)

    def on_fit_end(self, trainer: Trainer, module: DiffusionModule) -> None:
        """If the run was killed during its last validation, validate on resume, although no step is left."""
        if not self.trained and self.validation_is_due:
            module.to(trainer.strategy.root_device)  # Lightning has moved it to the CPU
            self.validate_if_due(trainer)

    def validate_if_due(self, trainer: Trainer) -> None:
        if self.validation_is_due:
            loop = trainer.fit_loop.epoch_loop.val_loop
            loop.restarting = False
            trainer.validating = True
            loop.run()
            trainer.training = True

    # Content of checkpoints

    def on_save_checkpoint(self, trainer: Trainer, module: DiffusionModule, checkpoint: dict[str, Any]) -> None:
        self.note(trainer)  # needed if a picture of this step was interrupted
        checkpoint["loops"]["fit_loop"] = normalize_counts(self.loops)
        checkpoint |= {"ImageDataModule": self.loader} if self.loader else {}
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

    # Writing of files

    def save(self, trainer: Trainer) -> None:
        """Called on all ranks. If the disk is full, the run continues with a warning and the last good checkpoint."""
        if trainer.global_step == self.saved_step:
            return
        self.saved_step = trainer.global_step
        for logger in trainer.loggers:
            logger.save()  # a run that resumes here does not log earlier values again
        with stage(f"saving a checkpoint of step {trainer.global_step}", trainer.is_global_zero):
            trainer.save_checkpoint(files.path_of_step(folder(trainer), trainer.global_step))
        self.tidy(trainer)

    @rank_zero_only
    def tidy(self, trainer: Trainer) -> None:
        failure = trainer.strategy.checkpoint_io.failure
        if failure:
            reason = str(failure).splitlines()[0]
            rank_zero_warn(
                f"step {trainer.global_step}: no checkpoint could be written ({reason}); {self.what_is_left(trainer)}"
            )
            return
        try:
            self.link_and_prune(trainer)
        except OSError as error:
            rank_zero_warn(f"step {trainer.global_step}: the checkpoint was written, but not the links to it: {error}")
        self.newest = files.path_of_step(folder(trainer), trainer.global_step)
        for logger in trainer.loggers:
            logger.after_save_checkpoint(self)

    def link_and_prune(self, trainer: Trainer) -> None:
        where = folder(trainer)
        files.point_link(where / "last.ckpt", files.path_of_step(where, trainer.global_step))
        if self.best and files.path_of_step(where, int(self.best["step"])).exists():
            files.point_link(where / "best.ckpt", files.path_of_step(where, int(self.best["step"])))
        for path in files.list_checkpoints(where):
            if files.step_of(path) not in self.kept(where):
                files.remove(path)

    def kept(self, where: Path) -> set[int]:
        steps = [files.step_of(path) for path in files.list_checkpoints(where)]
        kept = set(steps[: self.last])
        if self.keep_every_n_steps is not None:
            kept |= {step for step in steps if step % self.keep_every_n_steps == 0}
        return kept | ({int(self.best["step"])} if self.best else set())

    def what_is_left(self, trainer: Trainer) -> str:
        left = last_good(trainer)
        return f"the last good checkpoint is {left}" if left else "there is no earlier one"


LOST = (
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL communicator was aborted"),
    "Timed out waiting",
)
"""Messages of torch's backends when another process is gone or hangs."""


def another_is_lost(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST)


def validates(trainer: Trainer) -> bool:
    """Whether there are validation batches."""
    return bool(trainer.enable_validation) and sum(trainer.num_val_batches) > 0


def folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / "checkpoints"


def last_good(trainer: Trainer) -> Path | None:
    return next((path for path in files.list_checkpoints(folder(trainer)) if files.find_damage(path) is None), None)
