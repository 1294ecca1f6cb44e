"""Sample numbers: each on one rank, none twice, and a run that stopped goes on with the batches that it lacks."""

import pytest
import torch

from ddpm.generation.samples import SampleLoader


def numbers(loader) -> list[int]:
    return [i for batch in loader for i in batch["index"].tolist()]


def batches(*args, **options) -> list[list[int]]:
    return [batch["index"].tolist() for batch in SampleLoader(*args, **options)]


@pytest.mark.parametrize(("num", "world_size", "batch_size"), [(33, 2, 8), (1, 4, 8), (50, 3, 5), (8, 1, 8)])
def test_every_sample_is_on_exactly_one_rank(num, world_size, batch_size):
    loaders = [SampleLoader(num, batch_size, rank=r, world_size=world_size) for r in range(world_size)]
    assert sorted(i for loader in loaders for i in numbers(loader)) == list(range(num))


def test_a_loader_can_be_used_again():
    loader = SampleLoader(10, 4)
    assert numbers(loader) == numbers(loader) == list(range(10))


def test_labels_follow_the_samples_number_and_not_the_batch():
    def labels(loader):
        return {int(i): int(y) for b in loader for i, y in zip(b["index"], b["label"], strict=True)}

    assert labels(SampleLoader(20, 3, conditions={"label": torch.tensor([3, 5, 7])})) == {
        i: [3, 5, 7][i % 3] for i in range(20)
    }
    assert set(labels(SampleLoader(4, 2)).values()) == {-1}


@pytest.mark.parametrize("num_there", range(12))
def test_a_batch_is_left_out_only_if_all_of_it_is_there_and_the_others_stay_as_they_were(num_there):
    done_mask = torch.arange(11) < num_there
    for rank in (0, 1):
        every = batches(11, 3, rank=rank, world_size=2)
        rest = batches(11, 3, rank=rank, world_size=2, done_mask=done_mask)
        assert rest == [batch for batch in every if max(batch) >= num_there]


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 4), (2, 4), (3, 2), (5, 50)])
def test_a_stopped_run_is_finished_by_any_number_of_ranks(world_size, batch_size):
    done_mask = torch.zeros(40, dtype=torch.bool)
    for rank, num_done in ((0, 1), (1, 3)):  # one of two ranks was ahead when they were stopped
        for batch in batches(40, 4, rank=rank, world_size=2)[:num_done]:
            done_mask[batch] = True
    rest = [
        i
        for r in range(world_size)
        for b in batches(40, batch_size, rank=r, world_size=world_size, done_mask=done_mask)
        for i in b
    ]
    assert len(rest) == len(set(rest))
    assert set(rest) >= set(torch.arange(40)[~done_mask].tolist())


def test_growth_leaves_the_full_batches_as_they_were():
    assert batches(30, 4)[:2] == batches(11, 4)[:2]


def test_a_rank_without_samples_counts_as_many_batches_as_the_others():
    """Lightning leaves out the hooks of a rank that has none, and the others would wait for it in theirs."""
    assert {len(SampleLoader(1, 8, rank=rank, world_size=4)) for rank in range(4)} == {1}
    assert len(SampleLoader(8, 4, done_mask=torch.ones(8, dtype=torch.bool))) == 2


@pytest.mark.parametrize("options", [{"num_samples": 0}, {"batch_size": 0}])
def test_wrong_numbers_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SampleLoader(**{"num_samples": 4, "batch_size": 2, **options})
