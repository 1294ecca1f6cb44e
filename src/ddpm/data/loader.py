"""A resumable training loader, and an evaluation loader that yields every image once.

torch's DataLoader has no position, and torchdata's loader resumes in another order under DDP. Therefore `order.py`
computes the order, and DataLoader only prefetches.
"""

from collections.abc import Iterator

from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Rng
from ddpm.base.types import Batch
from ddpm.data.order import keyed_order, micro_batch, micro_batch_size, split_among_ranks
from ddpm.data.pixels import ImageData


def assemble(
    fields: dict[str, Tensor], conditions: dict[str, Tensor], index: Tensor, position: Tensor, pinned: bool = False
) -> Batch:
    """A batch with these fields and conditions of its images."""
    batch = {**fields, **conditions, "index": index, "position": position}
    return {name: tensor.pin_memory() for name, tensor in batch.items()} if pinned else batch


class TrainLoader:
    """One rank's micro-batches of shuffled images.

    The order is a function of (seed, epoch). Iteration starts at the current position and stops at the end of the
    epoch. The position counts yielded batches, not prefetched ones. With trainer.limit_train_batches, an epoch of the
    trainer therefore continues where the previous one stopped, and the last part of the data gives a shorter epoch.
    batch_size: images of one optimizer step on all ranks. It consists of `accumulation` consecutive micro-batches of
    all ranks; an incomplete batch at the end of an epoch is dropped. flip: mirror each image with probability 1/2, as a
    function of (seed, epoch, index).
    """

    def __init__(
        self,
        data: ImageData,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        accumulation: int = 1,
        flip: bool = False,
        pinned: bool = False,
    ):
        if len(data) < batch_size:
            check.fail("data.batch_size", batch_size, f"at most the number of training images, {len(data)}")
        self.data = data
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size(batch_size, world_size, accumulation)
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.accumulation = accumulation
        self.flip = flip
        self.pinned = pinned
        self.epoch = 0
        self.batch = 0  # micro-batches of this epoch already handed out
        self._reader = data.pixels.full_reader(persistent=True)

    def __len__(self) -> int:
        """Micro-batches of a full epoch, independent of the position."""
        return len(self.data) // self.batch_size * self.accumulation

    def __iter__(self) -> Iterator[Batch]:
        epoch, first, last = self.epoch, self.batch, len(self)
        rng = Rng(self.seed, "data")
        order = keyed_order(rng, "order", epoch, len(self.data))
        mirrored = rng.at(epoch, self.data.indices).integers("flip", 2).bool() if self.flip else None
        positions = [micro_batch(k, self.micro_batch_size, self.rank, self.world_size) for k in range(first, last)]
        rows = [order[position] for position in positions]
        indices = [self.data.indices[row] for row in rows]
        kept = self.data.pixels
        for number, stored in enumerate(self._reader.read(indices)):
            fields = kept.fields(stored, None if mirrored is None else mirrored[rows[number]])
            conditions = self.data.conditions(indices[number])
            batch = assemble(fields, conditions, indices[number], positions[number], self.pinned)
            done = first + number + 1
            self.epoch, self.batch = (epoch, done) if done < last else (epoch + 1, 0)
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the number of its images used by complete optimizer steps of all ranks. It is the same on
        every rank, and valid for any number of ranks, accumulation and batch size."""
        return {"epoch": self.epoch, "images": self.batch // self.accumulation * self.batch_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Set the position to the saved one, rounded up to a whole batch of this loader."""
        steps = -(-state["images"] // self.batch_size)
        self.epoch, self.batch = state["epoch"], steps * self.accumulation
        if self.batch >= len(self):
            self.epoch, self.batch = self.epoch + 1, 0


class EvalLoader:
    """One rank's share of all images in order, unflipped. No image is dropped or repeated.

    Ranks can differ by one batch, so the work on a batch must not wait for other ranks. batch_size: images per rank.
    """

    def __init__(self, data: ImageData, batch_size: int, *, rank: int = 0, world_size: int = 1, pinned: bool = False):
        self.data = data
        self.positions = split_among_ranks(0, len(data), rank, world_size, batch_size)
        self.pinned = pinned
        self._reader = data.pixels.full_reader(persistent=False)

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Batch]:
        indices = [self.data.indices[position] for position in self.positions]
        for number, stored in enumerate(self._reader.read(indices)):
            index, fields = indices[number], self.data.pixels.fields(stored)
            yield assemble(fields, self.data.conditions(index), index, self.positions[number], self.pinned)
