"""The learning rate: warm-up reaches it, the cosine leaves it, and nothing else changes it."""

import pytest
import torch

from ddpm.training.optimizer import adam, adamw


def rates(num, **settings):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer, schedule = adam([parameter], num_steps=num, lr=2.0, **settings)
    seen = []
    for _ in range(num):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_the_warmup_rises_evenly_and_stays():
    assert rates(6, warmup_steps=4, cosine_decay=False) == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0])


def test_the_cosine_is_half_way_in_the_middle_and_zero_after_the_last_step():
    found = rates(100, warmup_steps=0, cosine_decay=True)
    assert found[0] == 2.0
    assert found[50] == pytest.approx(1.0)
    assert 0 < found[99] < 0.001


def test_a_run_without_an_end_is_refused():
    with pytest.raises(ValueError, match=r"trainer.max_steps must be an integer of at least 1, got -1"):
        adamw([torch.nn.Parameter(torch.zeros(1))], num_steps=-1, lr=1.0, warmup_steps=0, cosine_decay=True)


@pytest.mark.parametrize(
    ("field", "value"), [("lr", -1.0), ("lr", "x"), ("warmup_steps", -3), ("betas", (0.9,)), ("betas", (0.9, 1.0))]
)
def test_bad_settings_are_named(field, value):
    settings = {"lr": 1.0, "warmup_steps": 0, "cosine_decay": False, field: value}
    with pytest.raises(ValueError, match=f"{field} must be"):
        adam([torch.nn.Parameter(torch.zeros(1))], num_steps=10, **settings)
