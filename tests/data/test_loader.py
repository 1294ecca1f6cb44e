"""The order of images: the same whatever the ranks, accumulation and workers, and exact after a resume."""

import gc
import os
import socket
import time
from multiprocessing import resource_sharer

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from ddpm.base.rng import Rng
from ddpm.data.decode import Decoder
from ddpm.data.images import Preparation
from ddpm.data.loader import EvalLoader, TrainLoader
from ddpm.data.order import choose_subset, keyed_order, micro_batch_size
from ddpm.data.pixels import ImageData, MemoryPixels, StreamedPixels, mirror
from ddpm.data.sources.base import ArrayImages
from ddpm.data.workers import BatchReader


def indices(batches) -> list[list[int]]:
    return [batch["index"].tolist() for batch in batches]


def flat(lists) -> list:
    return [entry for one in lists for entry in one]


def streamed(num: int, num_workers: int) -> ImageData:
    """n images of 2 x 2 filled with their number, decoded when asked for."""
    pixels = np.arange(num, dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2)
    images = ArrayImages("numbered", pixels, torch.arange(num) * 10, ())
    decoder = Decoder(images, Preparation(1, (2, 2)))
    return ImageData(StreamedPixels(decoder, num_workers), images.labels, torch.arange(num))


def numbered_data(num: int) -> ImageData:
    return ImageData(
        MemoryPixels(torch.zeros(num, 1, 1, 1, dtype=torch.uint8)), torch.zeros(num).long(), torch.arange(num)
    )


def test_an_order_is_a_permutation_that_seed_and_epoch_decide():
    orders = [keyed_order(Rng(seed, "data"), "order", epoch, 1000) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        assert order.sort().values.tolist() == list(range(1000))
    assert len({tuple(order.tolist()) for order in orders}) == 4
    assert torch.equal(orders[1], keyed_order(Rng(0, "data"), "order", 1, 1000))


def test_an_order_is_uniform():
    """Where image 0 lands in 800 epochs of 10 images: chi-squared with 9 degrees, 99.9 % below 27.9."""
    places = torch.stack([(keyed_order(Rng(0, "data"), "order", e, 10) == 0).nonzero()[0, 0] for e in range(800)])
    counts = torch.bincount(places, minlength=10).double()
    assert ((counts - 80) ** 2 / 80).sum() < 27.9


def test_a_batch_holds_what_belongs_together(numbered):
    for batch in TrainLoader(numbered(20), 5, seed=0):
        level = (batch["image"][:, 0, 0, 0] + 1) * 127.5
        assert torch.equal(level.round().long(), batch["index"])
        assert torch.equal(batch["label"], 10 * batch["index"])
        assert {t.dtype for n, t in batch.items() if n != "image"} == {torch.int64}


def test_images_span_minus_one_to_one():
    data = ImageData(
        MemoryPixels(torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1)), torch.zeros(256).long(), torch.arange(256)
    )
    image = next(iter(EvalLoader(data, 256)))["image"].flatten()
    assert image.dtype == torch.float32
    assert torch.equal(image, torch.arange(256) / 127.5 - 1)
    assert (image[0], image[255]) == (-1, 1)


def test_positions_count_through_the_epochs_order(numbered):
    positions = torch.cat([batch["position"] for batch in TrainLoader(numbered(20), 4, seed=0)])
    assert positions.tolist() == list(range(20))


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (2, 1), (1, 4), (2, 2), (4, 2)])
def test_global_batches_are_the_same_for_any_ranks_and_accumulation(numbered, world_size, accumulation):
    data = numbered(50)
    whole = indices(TrainLoader(data, 16, seed=3))
    ranks = [
        TrainLoader(data, 16, seed=3, rank=r, world_size=world_size, accumulation=accumulation)
        for r in range(world_size)
    ]
    for _ in range(2):  # epochs
        steps = [[] for _ in whole]
        for loader in ranks:
            batches = list(loader)
            assert len(batches) == len(loader) == 3 * accumulation
            assert {len(b["index"]) for b in batches} == {16 // (world_size * accumulation)}
            for k, batch in enumerate(batches):
                steps[k // accumulation] += list(zip(batch["position"].tolist(), batch["index"].tolist(), strict=True))
        assert [[index for _, index in sorted(step)] for step in steps] == whole
        second = TrainLoader(data, 16, seed=3)
        list(second)
        whole = indices(second)


def test_an_epoch_sees_each_image_at_most_once_and_drops_only_the_remainder(numbered):
    seen = flat(indices(TrainLoader(numbered(50), 16, seed=0)))
    assert len(seen) == len(set(seen)) == 48


def test_epochs_differ_and_advance_when_exhausted(numbered):
    loader = TrainLoader(numbered(32), 8, seed=0)
    first, second = indices(loader), indices(loader)
    assert loader.epoch == 2
    assert first != second
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(32))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_sees_exactly_the_rest(num_workers):
    """Stopped after 3 of 6 batches, with others decoded ahead; then again after 2 more epochs and 1 batch."""
    data = streamed(48, num_workers)
    whole = TrainLoader(data, 8, seed=1, flip=True)
    expected = [batch for _ in range(4) for batch in whole]

    loader, got = TrainLoader(data, 8, seed=1, flip=True), []
    for stop_after in (3, 16, 5):
        resumed = TrainLoader(data, 8, seed=1, flip=True)
        resumed.load_state_dict(loader.state_dict())
        loader, handed_out = resumed, 0
        while handed_out < stop_after:
            for batch in loader:
                got.append(batch)
                handed_out += 1
                if handed_out == stop_after:
                    break
    assert len(got) == len(expected) == 24
    for one, other in zip(got, expected, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_workers_change_nothing_and_stay_for_the_next_epoch():
    plain, workers = (
        TrainLoader(streamed(40, 0), 8, seed=0, flip=True),
        TrainLoader(streamed(40, 2), 8, seed=0, flip=True),
    )
    for _ in range(2):
        for one, other in zip(plain, workers, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)
    assert workers._reader.batches.loader.persistent_workers


def test_the_position_moves_when_a_batch_is_handed_out_not_when_it_is_decoded():
    loader = TrainLoader(streamed(48, 2), 8, seed=0)
    batches = iter(loader)
    assert loader.state_dict() == {"epoch": 0, "images": 0}
    for done in range(1, 6):
        next(batches)
        assert loader.state_dict() == {"epoch": 0, "images": 8 * done}
    next(batches)
    assert loader.state_dict() == {"epoch": 1, "images": 0}


def test_the_state_is_plain_ints(numbered):
    state = TrainLoader(numbered(20), 4, seed=0).state_dict()
    assert {type(value) for value in state.values()} == {int}


def test_reading_leaves_torchs_own_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(TrainLoader(streamed(16, 2), 4, seed=0, flip=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_resume_with_other_ranks_continues_the_same_global_batches(numbered):
    data = numbered(64)
    expected = indices(TrainLoader(data, 16, seed=0))[2:]
    first = TrainLoader(data, 16, seed=0, rank=1, world_size=4)
    for _, _ in zip(range(2), first, strict=False):
        pass
    rest = [[], []]
    for rank in (0, 1):
        loader = TrainLoader(data, 16, seed=0, rank=rank, world_size=2)
        loader.load_state_dict(first.state_dict())
        rest[rank] = indices(loader)
    assert [a + b for a, b in zip(*rest, strict=True)] == expected


@st.composite
def interrupted(draw):
    """A loader's numbers, where it stops (after a whole step), and the ranks and accumulation that go on."""
    micro, accumulation, world = (draw(st.integers(1, high)) for high in (3, 3, 4))
    batch = micro * accumulation * world
    after = draw(
        st.sampled_from([(a, w) for a in range(1, batch + 1) for w in range(1, batch + 1) if batch % (a * w) == 0])
    )
    num = draw(st.integers(batch, 6 * batch))
    steps = draw(st.integers(0, 2 * (num // batch)))
    return {"num": num, "batch": batch, "before": (accumulation, world), "after": after, "steps": steps}


def steps_of(case, spread, stop=None, state=None):
    """The images of each step over all ranks, and the first rank's state at the end: `stop` steps, or two epochs."""
    accumulation, world = spread
    wanted = 2 * (case["num"] // case["batch"]) if stop is None else stop
    ranks, states = [], []
    for rank in range(world):
        data = numbered_data(case["num"])
        loader = TrainLoader(data, case["batch"], seed=5, rank=rank, world_size=world, accumulation=accumulation)
        if state:
            loader.load_state_dict(state)
        batches = []
        while len(batches) < wanted * accumulation:
            for batch in loader:
                batches.append(batch)
                if len(batches) == wanted * accumulation:
                    break
        ranks.append(batches)
        states.append(loader.state_dict())
    assert all(each == states[0] for each in states)
    micro = [flat(batch["index"].tolist() for batch in together) for together in zip(*ranks, strict=True)]
    return [flat(micro[k : k + accumulation]) for k in range(0, len(micro), accumulation)], states[0]


@given(interrupted())
def test_wherever_a_run_stops_and_however_it_is_spread_then_the_rest_is_what_was_left(case):
    """Any number of images, batch, accumulation, ranks, epoch and position, before and after."""
    whole, _ = steps_of(case, case["before"])
    first, state = steps_of(case, case["before"], stop=case["steps"])
    rest, _ = steps_of(case, case["after"], stop=len(whole) - case["steps"], state=state)
    assert first + rest == whole


def test_another_batch_size_goes_on_at_its_next_whole_batch(numbered):
    loader = TrainLoader(numbered(32), 4, seed=0)
    for _, _ in zip(range(3), loader, strict=False):
        pass
    other = TrainLoader(numbered(32), 8, seed=0)
    other.load_state_dict(loader.state_dict())
    assert indices(other) == indices(TrainLoader(numbered(32), 8, seed=0))[2:]  # 12 images are part of the second


def test_a_batch_that_devices_and_accumulation_do_not_divide_is_refused(numbered):
    with pytest.raises(ValueError, match=r"2 x 3 = 6, got 16; use 12 or 18"):
        micro_batch_size(16, 2, 3)
    with pytest.raises(ValueError, match="use 8"):
        TrainLoader(numbered(32), 4, seed=0, world_size=8)


def test_a_batch_larger_than_the_data_is_refused(numbered):
    with pytest.raises(ValueError, match=r"data\.batch_size must be at most the number of training images, 9, got 10"):
        TrainLoader(numbered(9), 10, seed=0)


@pytest.mark.parametrize(
    ("num", "world_size", "batch_size"), [(33, 2, 8), (33, 1, 8), (32, 4, 3), (5, 4, 8), (7, 2, 1)]
)
def test_evaluation_sees_every_image_once_on_any_ranks(numbered, num, world_size, batch_size):
    loaders = [EvalLoader(numbered(num), batch_size, rank=r, world_size=world_size) for r in range(world_size)]
    seen = [indices(loader) for loader in loaders]
    assert sorted(flat(flat(seen))) == list(range(num))
    assert [len(loader) for loader in loaders] == [len(batches) for batches in seen]
    assert all(len(batch) <= batch_size for batches in seen for batch in batches)
    sizes = [sum(map(len, batches)) for batches in seen]
    assert max(sizes) - min(sizes) <= 1


def test_evaluation_is_in_order_unflipped_and_repeatable():
    loader = EvalLoader(streamed(10, 2), 4)
    for _ in range(2):
        assert indices(loader) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def asymmetric(num: int) -> ImageData:
    """Images whose left half is bright and right half dark."""
    row = torch.tensor([255, 255, 0, 0], dtype=torch.uint8)
    return ImageData(MemoryPixels(row.expand(num, 3, 4, 4).contiguous()), torch.zeros(num).long(), torch.arange(num))


def flipped_images(loader) -> dict[int, bool]:
    return {
        int(index): bool(image[0, 0, 0] < 0)
        for batch in loader
        for index, image in zip(batch["index"], batch["image"], strict=True)
    }


def test_flips_follow_seed_epoch_and_image_only():
    data = asymmetric(64)
    loader = TrainLoader(data, 16, seed=0, flip=True)
    first, second = flipped_images(loader), flipped_images(loader)
    ranks = [TrainLoader(data, 32, seed=0, flip=True, rank=r, world_size=2, accumulation=2) for r in (0, 1)]
    assert flipped_images(ranks[0]) | flipped_images(ranks[1]) == first
    assert second != first
    assert flipped_images(TrainLoader(data, 16, seed=1, flip=True)) != first
    assert not any(flipped_images(TrainLoader(data, 16, seed=0)).values())


def test_half_of_the_images_are_flipped():
    """4,096 fair coins: 5 standard deviations are 160."""
    assert abs(sum(flipped_images(TrainLoader(asymmetric(4096), 1024, seed=0, flip=True)).values()) - 2048) < 160


def test_a_flip_exchanges_left_and_right_of_the_marked_images_only():
    pixels = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8)
    got = mirror(pixels, torch.tensor([True, False, False, True])).numpy()
    for row, marked in enumerate((1, 0, 0, 1)):
        np.testing.assert_array_equal(got[row], np.flip(pixels[row].numpy(), 2) if marked else pixels[row].numpy())


def test_chosen_images_are_the_same_in_every_run_and_grow_with_their_number():
    assert choose_subset(100, 10).tolist() == choose_subset(100, 10).tolist()
    assert set(choose_subset(100, 10).tolist()) < set(choose_subset(100, 20).tolist())
    assert len(set(choose_subset(100, 100).tolist())) == 100


def test_workers_stop_at_once_when_the_garbage_collector_finds_their_loader(monkeypatch):
    """In a reference cycle, as in a Trainer, each worker was waited for, 5 s by default."""
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 60.0)
    loader = TrainLoader(streamed(48, 2), 8, seed=0)
    batches = iter(loader)
    next(batches)
    loader.itself, loader.batches = loader, batches
    start = time.monotonic()
    del loader, batches
    gc.collect()
    assert time.monotonic() - start < 45


class Handles(Dataset):
    """Each batch is a file handle, which is fetched from the worker as the memory of a tensor is."""

    def __getitems__(self, indices):
        return resource_sharer.DupFd(0)


def test_a_process_that_ends_while_it_fetches_a_batch_makes_its_worker_print_nothing(capfd):
    batches = BatchReader(Handles(), num_workers=1).read([torch.tensor([0])] * 2)
    handle = next(batches)
    address, _ = handle._id
    for sent in (b"", b"\0\0"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(address)
            connection.sendall(sent)
    os.close(handle.detach())  # the worker serves one connection after the other
    assert capfd.readouterr().err == ""
