"""Decode images to uint8 tensors, in this or in worker processes, and verify all images before training."""

import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ddpm.data.images import Misfit, Preparation, UnusableImage
from ddpm.data.label_images import LabelledPreparation
from ddpm.data.sources.base import Images

MAX_NAMED = 20
"""Broken images of one reason that an error names, and reasons."""
MAX_EXAMPLES = 3
"""Images of one size that does not fit that an error names."""


class Problem(NamedTuple):
    number: int  # of the image
    name: str
    reason: str  # what is wrong
    remedy: str = ""  # of an intact image that does not fit the settings
    remedy_if_all: str = ""  # see `Misfit`


@dataclass(frozen=True)
class Decoder:
    images: Images
    preparation: Preparation | LabelledPreparation
    see: Callable[[Any], Any] | None = None  # what is done with an opened image before it is prepared

    def one(self, index: int) -> np.ndarray | Problem:
        """The image, uint8 `[C, H, W]`, or the problem. Image libraries raise many kinds of errors for broken files."""
        try:
            image = self.images.image(index)
            return self.preparation(image if self.see is None else self.see(image))
        except Misfit as error:
            return Problem(index, self.images.name(index), error.what, error.remedy, error.remedy_if_all)
        except Exception as error:
            kind = "" if isinstance(error, UnusableImage) else f"{type(error).__name__}: "
            return Problem(index, self.images.name(index), f"{kind}{error}")

    def decoded(self, indices: list[int]) -> tuple[Tensor, list[Problem]]:
        """The images, uint8 `[B, C, H, W]`, with zeros for images that have a problem, and the problems."""
        pixels = np.zeros((len(indices), *self.preparation.shape), dtype=np.uint8)
        problems = []
        for row, index in enumerate(indices):
            result = self.one(index)
            if isinstance(result, Problem):
                problems.append(result)
            else:
                pixels[row] = result
        return torch.from_numpy(pixels), problems


class DecodedBatches(Dataset):
    """The decoder as a data set for torch's DataLoader, with one call per batch."""

    def __init__(self, decoder: Decoder):
        self.decoder = decoder

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, list[Problem]]:
        return self.decoder.decoded(indices)


class Inspections(Dataset):
    """As DecodedBatches, with the sha256 of each image. keep: whether to return the pixels."""

    def __init__(self, decoder: Decoder, keep: bool):
        self.decoder = decoder
        self.keep = keep

    def __getitems__(self, indices: list[int]) -> tuple[Tensor | None, Tensor, list[Problem]]:
        pixels, problems = self.decoder.decoded(indices)
        digests = bytearray().join(sha256(image).digest() for image in pixels.numpy())
        return (pixels if self.keep else None), torch.frombuffer(digests, dtype=torch.uint8).view(-1, 32), problems


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


@dataclass(frozen=True)
class Inspection:
    """The result of inspecting N images. digests: uint8 `[N, 32]`, sha256 of the uint8 pixels. pixels: uint8
    `[N, C, H, W]`, or None if they were not kept. Both are undefined for images with a problem."""

    digests: Tensor
    problems: list[Problem]
    pixels: Tensor | None


def inspect(decoder: Decoder, indices: Tensor, num_workers: int, keep: bool, batch_size: int = 128) -> Inspection:
    """Decode each of the images `indices` once."""
    pixels = torch.empty((len(indices), *decoder.preparation.shape), dtype=torch.uint8) if keep else None
    digests = torch.empty((len(indices), 32), dtype=torch.uint8)
    problems: list[Problem] = []
    done = 0
    reader = BatchReader(Inspections(decoder, keep), num_workers)
    for some_pixels, some_digests, some_problems in reader.read(list(indices.split(batch_size))):
        rows = slice(done, done + len(some_digests))
        digests[rows] = some_digests
        if pixels is not None:
            pixels[rows] = some_pixels
        problems += some_problems
        done = rows.stop
    return Inspection(digests, problems, pixels)


def usable(num: int, problems: list[Problem], on_broken: str) -> Tensor:
    """int64, the numbers in 0..num-1 of images without a problem.

    Raises ValueError that lists the others with what helps. on_broken: of images that are broken or lack something, one
    of "stop", "skip" and "keep" (they may neither be skipped). Images that do not fit the settings are always refused.
    """
    misfits = [p for p in problems if p.remedy]
    broken = [p for p in problems if not p.remedy]
    parts = []
    if misfits:
        alike = {p.remedy_if_all for p in misfits} if len(misfits) == num else {""}
        remedies = [*dict.fromkeys(p.remedy for p in misfits), *(alike - {""} if len(alike) == 1 else ())]
        listed = list_problems(f"{len(misfits)} of {num} images do not fit the settings", misfits)
        parts.append(f"{listed}\nRemedy: {', or '.join(remedies)}")
    if broken and (on_broken != "skip" or len(broken) == num):
        can_skip = on_broken == "stop" and len(broken) < num
        listed = list_problems(f"{len(broken)} of {num} images cannot be used", broken)
        parts.append(f"{listed}\nRepair or remove them{', or leave them out: data.on_broken=skip' if can_skip else ''}")
    if parts:
        raise ValueError("\n".join(parts))
    mask = torch.ones(num, dtype=torch.bool)
    mask[[p.number for p in problems]] = False
    return mask.nonzero()[:, 0]


def list_problems(what: str, problems: list[Problem]) -> str:
    """A line for each reason with the names of its images."""
    names: dict[str, list[str]] = {}
    for problem in sorted(problems):
        names.setdefault(problem.reason, []).append(problem.name)
    most = MAX_EXAMPLES if all(problem.remedy for problem in problems) else MAX_NAMED
    lines = [f"  {shortened(each, most)}: {reason}" for reason, each in list(names.items())[:MAX_NAMED]]
    lines += [f"  and {len(names) - MAX_NAMED} more kinds"] if len(names) > MAX_NAMED else []
    return "\n".join([f"{what}:", *lines])


def shortened(names: list[str], most: int) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
