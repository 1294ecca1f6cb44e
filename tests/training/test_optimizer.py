"""The learning rate: warm-up reaches it, the cosine leaves it, and nothing else changes it."""

import pytest
import torch

from ddpm.training.muon import Muon, orthogonal
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


def seeded(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (3, 5, 7)])
def test_orthogonal_changes_singular_values_alone_by_the_polynomial(shape):
    matrix = seeded(*shape, seed=0)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.norm(dim=-1, keepdim=True)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    assert ((s > 0.6) & (s < 1.3)).all()
    torch.testing.assert_close(orthogonal(matrix), u @ torch.diag_embed(s) @ v, rtol=1e-5, atol=1e-6)
    assert (orthogonal(torch.zeros(2, 3)) == 0).all()


def test_muon_moves_a_convolution_by_its_orthogonal_momentum_and_other_weights_as_adamw_does():
    shapes = [(6, 2, 3, 3), (6, 2, 3, 3), (4, 3), (5,)]
    weights = [torch.nn.Parameter(seeded(*shape, seed=number)) for number, shape in enumerate(shapes)]
    others = [torch.nn.Parameter(weight.detach().clone()) for weight in weights[2:]]
    optimizer = Muon(weights, lr=0.1, momentum=0.9, betas=(0.8, 0.99), eps=1e-8, weight_decay=0.5)
    adamw_of_torch = torch.optim.AdamW(others, lr=0.1, betas=(0.8, 0.99), eps=1e-8, weight_decay=0.5)
    expected, momentum = weights[0].detach().clone(), torch.zeros(6, 18, dtype=torch.float64)
    for step in range(3):
        for number, weight in enumerate(weights):
            weight.grad = seeded(*weight.shape, seed=10 * step + number)
        for weight, other in zip(weights[2:], others, strict=True):
            other.grad = weight.grad.clone()
        gradient = weights[0].grad.flatten(1)
        momentum = 0.9 * momentum + 0.1 * gradient
        update = 0.2 * 18**0.5 * orthogonal(0.9 * momentum + 0.1 * gradient)
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * update.view(6, 2, 3, 3)
        optimizer.step()
        adamw_of_torch.step()
    torch.testing.assert_close(weights[0].detach(), expected)
    for weight, other in zip(weights[2:], others, strict=True):
        torch.testing.assert_close(weight, other)


def test_the_update_of_muon_is_as_large_as_one_of_adam():
    update = 0.2 * 64**0.5 * orthogonal(seeded(16, 64, seed=3))
    assert update.square().mean().sqrt() == pytest.approx(0.2, rel=0.25)


def test_the_state_of_muon_is_the_same_after_it_was_loaded():
    """Runs that were interrupted end with the bytes of those that were not."""

    def stepped():
        weights = [torch.nn.Parameter(torch.ones(2, 1, 3, 3)), torch.nn.Parameter(torch.ones(2))]
        optimizer = Muon(weights, lr=0.1)
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        optimizer.step()
        return optimizer

    one, other = stepped(), stepped()
    other.load_state_dict(one.state_dict())
    assert other.state_dict()["param_groups"] == one.state_dict()["param_groups"]
