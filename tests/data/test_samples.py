"""Sample numbers: each on one rank, none twice, and a run that stopped goes on with the rest."""

import pytest

from ddpm.data.samples import SampleLoader


def numbers(loader) -> list[int]:
    return [i for batch in loader for i in batch["index"].tolist()]


@pytest.mark.parametrize(("num", "world_size", "batch_size"), [(33, 2, 8), (1, 4, 8), (50, 3, 5), (8, 1, 8)])
def test_every_sample_is_on_exactly_one_rank(num, world_size, batch_size):
    loaders = [SampleLoader(num, batch_size, rank=r, world_size=world_size, start=100) for r in range(world_size)]
    assert sorted(i for loader in loaders for i in numbers(loader)) == list(range(100, 100 + num))


def test_a_loader_can_be_used_again():
    loader = SampleLoader(10, 4)
    assert numbers(loader) == numbers(loader) == list(range(10))
    assert loader.epoch == 2


def test_labels_follow_the_samples_number_and_not_the_batch():
    def labels(loader):
        return {int(i): int(y) for b in loader for i, y in zip(b["index"], b["label"], strict=True)}

    whole = labels(SampleLoader(20, 20, labels=[3, 5, 7]))
    assert whole == {i: [3, 5, 7][i % 3] for i in range(20)}
    assert labels(SampleLoader(10, 3, start=10, labels=[3, 5, 7])) == {i: whole[i] for i in range(10, 20)}
    assert set(labels(SampleLoader(4, 2, labels=6)).values()) == {6}
    assert set(labels(SampleLoader(4, 2)).values()) == {-1}


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 4), (2, 4), (3, 2), (5, 50)])
def test_a_stopped_run_is_finished_by_any_number_of_ranks(world_size, batch_size):
    first = [SampleLoader(40, 4, rank=r, world_size=2) for r in (0, 1)]
    done = []
    for loader in first:
        batches = iter(loader)
        done += [i for _ in range(2) for i in next(batches)["index"].tolist()]
    state = first[0].state_dict()
    assert {type(value) for value in state.values()} == {int}
    rest = []
    for rank in range(world_size):
        loader = SampleLoader(40, batch_size, rank=rank, world_size=world_size)
        loader.load_state_dict(state)
        rest += numbers(loader)
    assert sorted(done + rest) == list(range(40))


def test_the_rest_of_another_request_is_refused():
    loader = SampleLoader(40, 4)
    with pytest.raises(ValueError, match="num_samples must be 40"):
        SampleLoader(50, 4).load_state_dict(loader.state_dict())


@pytest.mark.parametrize(
    "options",
    [{"num_samples": 0}, {"batch_size": 0}, {"start": -1}, {"labels": []}, {"labels": "cat"}, {"labels": [1.5]}],
)
def test_wrong_numbers_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SampleLoader(**{"num_samples": 4, "batch_size": 2, **options})
