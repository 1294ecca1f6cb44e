"""Read batches of a data set in an order that is given at each pass, in this or in worker processes."""

import os
import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class Plan:
    """The batches to read next, as the batch_sampler of a DataLoader."""

    def __init__(self) -> None:
        self.batches: list[Tensor] = []

    def __iter__(self) -> Iterator[list[int]]:
        return (indices.tolist() for indices in self.batches)


class BatchReader:
    """Read batches of a data set in a given order, prefetched by `num_workers` processes.

    persistent: keep the processes between calls of `read`.
    """

    def __init__(self, dataset: Dataset, num_workers: int, persistent: bool = False):
        self.plan = Plan()
        self.loader = DataLoader(
            dataset,
            batch_sampler=self.plan,
            num_workers=num_workers,
            collate_fn=identity_collate,
            worker_init_fn=follow_the_parent_alone,
            persistent_workers=persistent and num_workers > 0,
            generator=torch.Generator(),  # a separate one, because reading would advance the global one
        )
        # If the garbage collector destroys the queues of workers as part of a cycle (of a Trainer, for example), the
        # workers miss the signal to stop, and each is waited for 5 s. A finalizer keeps them out of the cycle.
        self.running: list[Iterator[Any]] = []
        weakref.finalize(self, self.running.clear)

    def read(self, plan: list[Tensor]) -> Iterator[Any]:
        self.plan.batches = plan
        self.running[:] = [iter(self.loader)]
        yield from self.running[0]


def identity_collate(batch: Any) -> Any:
    return batch


def follow_the_parent_alone(worker: int) -> None:
    """In a worker: ignore SIGTERM unless the parent process sent it, and end in silence if the parent ends.

    Schedulers send SIGTERM to all processes of a job, and the parent needs its workers until it has saved. A signal can
    end the parent while it fetches a batch; the thread of the worker that sends the batch would print a traceback.
    """
    sys.excepthook = print_unless_disconnected
    if not hasattr(signal, "sigwaitinfo"):  # macOS
        return
    parent = os.getppid()

    def watch() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=watch, daemon=True).start()


def print_unless_disconnected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, trace)
