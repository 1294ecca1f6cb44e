"""SIGTERM, SIGINT (Ctrl-C), SIGHUP and a scheduler's SIGUSR1 and SIGUSR2 save a checkpoint and end all ranks.

The exit code is 128 + the number of the signal.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_info

from ddpm.base.progress import ProgressDisplay
from ddpm.diffusion.samplers.base import State
from ddpm.model.diffusion_model import do_nothing
from ddpm.runs.interruption import SIGNALS, Interrupted, ignored_by_nohup
from ddpm.training import slurm
from ddpm.training.callbacks.checkpoints import Checkpoints, last_good
from ddpm.training.logs import ends_step
from ddpm.training.module import DiffusionModule

REQUEUE = (signal.SIGUSR1, signal.SIGUSR2)  # sbatch --signal=USR1@90; submitit's jobs
FAILED = 1000  # not a number of a signal


class FailedElsewhere(Exception): ...


class Interruption(Callback):
    """Records a signal, and handles it at the end of a training step, a validation batch or a sampling step.

    All ranks handle it together, whichever received it. Further signals are ignored.
    requeue: in a SLURM job, SIGUSR1 and SIGUSR2 put the job back into the queue after saving.
    """

    def __init__(self, requeue: bool) -> None:
        self.requeue = requeue
        self.received = 0  # the signal's number
        self.before: dict[int, Any] = {}
        self.group: dist.ProcessGroup | None = None
        self.shared_val_batches = 0

    # Receive signals

    def on_fit_start(self, trainer: Trainer, module: DiffusionModule) -> None:
        if trainer.world_size > 1 and dist.get_backend() != "gloo":
            timeout = trainer.strategy._timeout
            self.group = dist.new_group(backend="gloo", timeout=timeout)  # to agree without waiting for the GPU
        self.before = {n: signal.signal(n, self.note) for n in SIGNALS if not ignored_by_nohup(n)}
        module.model.on_sampling_step = lambda state: stop_if_signalled(trainer)

    def note(self, number: int, frame: Any) -> None:
        self.received = self.received or number

    def teardown(self, trainer: Trainer, module: DiffusionModule, stage: str) -> None:
        module.model.on_sampling_step = do_nothing
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    # Handle signals

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if ends_step(trainer, batch_idx):
            stop_if_signalled(trainer)

    def on_validation_start(self, trainer: Trainer, module: DiffusionModule) -> None:
        self.shared_val_batches = agree(trainer, sum(trainer.num_val_batches), dist.ReduceOp.MIN)

    def on_validation_batch_end(
        self, trainer: Trainer, module: DiffusionModule, outputs: Any, batch: Any, batch_idx: int, *_: int
    ) -> None:
        if batch_idx < self.shared_val_batches:  # ranks may differ by one batch, and all must call it
            stop_if_signalled(trainer)

    def stop(self, trainer: Trainer, number: int) -> None:
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, Checkpoints):
                callback.save(trainer)
        for display in ProgressDisplay.opened[:1]:
            display.close()  # so that what follows is the last line
        name = signal.Signals(number).name
        where = f"{name} at step {trainer.global_step}: saved {last_good(trainer)}"
        rank_zero_info(f"{where}. The same command with resume=auto continues")
        if self.requeue and number in REQUEUE:
            try:
                self.put_back(trainer, number)
            finally:
                agree(trainer, 0, dist.ReduceOp.MAX)  # the first task that ends may end the others
        raise Interrupted(number, kept="")

    def put_back(self, trainer: Trainer, number: int) -> None:
        """Requeue by the handler of the program that started the job, if it has one: submitit counts requeues."""
        launcher = self.before.get(number)
        if callable(launcher) and launcher.__module__ != Interrupted.__module__:
            launcher(number, None)  # it may end this process
        elif trainer.is_global_zero:
            slurm.requeue()


class SideWork(Callback):
    """Drawing or evaluation during training. failures: error messages, printed at the end of the run."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    @contextmanager
    def tolerated(self, trainer: Trainer, what: str) -> Iterator[None]:
        """An error on any rank ends this work on all ranks at their next `stop_if_signalled`; training continues.

        The work must call `stop_if_signalled` before each collective operation, so that no rank waits for a failed one.
        """
        try:
            yield
            stop_if_signalled(trainer)
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
            self.failures.append(f"{what} at step {trainer.global_step} failed: {reason}")
            if not isinstance(error, FailedElsewhere):
                print(self.failures[-1], flush=True)
                stop_if_signalled(trainer, failed=True)


@contextmanager
def sampling_progress(trainer: Trainer, module: DiffusionModule, what: str, num_batches: int = 1) -> Iterator[None]:
    """Display the sampling steps of all batches that the model generates within this context."""
    model, step = module.model, 0
    total = num_batches * (len(model.sampler.times(model.sampler.process.T)) - 1)
    display = ProgressDisplay(f"{what}, sampling step", total) if trainer.is_global_zero else None
    before = model.on_sampling_step

    def watch(state: State) -> None:
        nonlocal step
        before(state)
        step += 1
        if display and step < total and display.is_due(step):
            display.show(step, f"t = {state.t}")

    model.on_sampling_step = watch
    try:
        yield
    finally:
        model.on_sampling_step = before
        if display:
            display.close()


def stop_if_signalled(trainer: Trainer, failed: bool = False) -> None:
    """End the run if a signal was received, or the work if it failed on a rank; called on all ranks at the same point.

    failed: whether the work of this rank has failed. The next call on the other ranks then raises FailedElsewhere.
    """
    callback = interruption(trainer)
    number = agree(trainer, FAILED if failed else getattr(callback, "received", 0), dist.ReduceOp.MAX)
    if number == FAILED and not failed:
        raise FailedElsewhere("on another rank, which prints the reason")
    if callback and 0 < number < FAILED:
        callback.stop(trainer, number)


def interruption(trainer: Trainer) -> Interruption | None:
    return next((each for each in trainer.callbacks if isinstance(each, Interruption)), None)


def agree(trainer: Trainer, number: int, how: Any) -> int:
    if trainer.world_size == 1:
        return number
    group = getattr(interruption(trainer), "group", None)
    shared = torch.tensor(number, device="cpu" if dist.get_backend(group) == "gloo" else trainer.strategy.root_device)
    dist.all_reduce(shared, how, group=group)
    return int(shared)
