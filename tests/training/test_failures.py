"""What can go wrong within a step: numbers that are none, and too little memory."""

import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback

from ddpm.commands import replay, train
from ddpm.config import build
from ddpm.runs import devices
from ddpm.training.callbacks.finite_loss import FiniteLoss


class PoisonAt(Callback):
    """Makes a weight infinite before a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step:
            module.network.stem.weight.data[0] = math.inf


@pytest.fixture
def poisoned(monkeypatch):
    make = build.trainer

    def trainer(*arguments):
        made = make(*arguments)
        made.callbacks.insert(0, PoisonAt(6))
        return made

    monkeypatch.setattr(build, "trainer", trainer)


def test_a_loss_that_is_no_number_stops_the_run_and_names_step_times_and_checkpoint(small, poisoned):
    config = small("trainer.max_steps=20", "checkpoint_every_n_steps=4", "trainer.log_every_n_steps=5")
    with pytest.raises(FloatingPointError, match=r"loss became .* at step 7, for times t in \d+\.\.\d+.*00000004.ckpt"):
        train.run_train(config)
    kept = torch.load(f"{config.run_dir}/checkpoints/00000004.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in kept.values() if isinstance(value, torch.Tensor))


def test_no_step_waits_for_the_device(small, monkeypatch):
    """Reading a number or asking whether a tensor is true waits for a GPU: the watch may do so only when it logs."""
    waits = []
    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"):
        original = getattr(torch.Tensor, name)
        spied = lambda self, *a, name=name, original=original: (waits.append(name), original(self, *a))[1]  # noqa: E731
        monkeypatch.setattr(torch.Tensor, name, spied)
    watch = FiniteLoss()
    module = build.module(small())
    trainer = SimpleNamespace(global_step=1, current_epoch=0, accumulate_grad_batches=1)
    trainer.log_every_n_steps, trainer.max_steps = 10, 100
    ids = torch.arange(4)
    batch = {"image": torch.rand(4, 1, 8, 8), "label": ids, "index": ids, "position": ids}
    waits.clear()
    for _ in range(3):
        watch.on_train_batch_end(
            trainer, module, {"turns": {"network": {"total": torch.rand(4), "t": ids + 1}}}, batch, 0
        )
    assert waits == []


def test_the_bad_step_is_kept_and_replayed_by_one_command(small, tmp_path, poisoned, monkeypatch, capsys):
    config = small("trainer.max_steps=20", "trainer.log_every_n_steps=5", "trainer.accumulate_grad_batches=2")
    with pytest.raises(FloatingPointError, match=r"python -m ddpm replay .*nonfinite/00000007\.pt"):
        train.run_train(config)
    path = tmp_path / "run" / "nonfinite" / "00000007.pt"
    stored = torch.load(path, weights_only=True)
    assert stored["pixels"].shape == (1, 2, 8, 1, 8, 8)  # ranks, micro-batches, images
    monkeypatch.setattr("sys.argv", ["replay", str(path)])
    replay.main()
    told = capsys.readouterr().out
    assert "the output of stem" in told
    assert f"the loss of image {int(stored['index'][0, 0, 0])} at t = " in told
    torch.save({**stored, "precision": "bf16-mixed"}, path)
    monkeypatch.setattr(devices, "convolution_seconds", {torch.float32: 0.001, torch.bfloat16: 0.0235}.get)
    with pytest.raises(ValueError, match="bf16-mixed is slow on this CPU"):
        replay.replay(path)
    monkeypatch.setattr("sys.argv", ["replay", str(path), "trainer.precision=bf16-mixed-slow"])
    replay.main()


def test_what_is_no_bad_step_is_not_replayed(small, tmp_path):
    train.run_train(small())
    for path in (tmp_path / "run" / "checkpoints" / "last.ckpt", tmp_path / "run", tmp_path / "none.pt"):
        with pytest.raises(ValueError, match=f"^ddpm replay takes RUN/nonfinite/STEP.pt, .*, got '{path}'$"):
            replay.replay(path)


def test_the_weights_stand_still_after_a_gradient_that_is_no_number(small):
    """Else the batch could not be replayed, since numbers are only looked at when they are logged."""
    module = build.module(small())
    optimizer = module.configure_optimizer(module.own_turn)["optimizer"]
    for parameter in module.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    next(module.network.parameters()).grad[0] = math.nan
    before = [parameter.clone() for parameter in module.network.parameters()]
    module.configure_gradient_clipping(optimizer, 1.0)
    optimizer.step()
    for parameter in module.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    module.configure_gradient_clipping(optimizer, 1.0)
    optimizer.step()  # and they stay so, whatever follows
    assert all(torch.equal(one, other) for one, other in zip(before, module.network.parameters(), strict=True))


def test_out_of_memory_says_which_accumulation_keeps_the_batch(small, monkeypatch):
    def exhausted(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr("ddpm.networks.unet.UNet.forward", exhausted)
    with pytest.raises(
        ValueError, match=r"out of memory on cpu: 16 images at once; trainer\.accumulate_grad_batches=2 "
    ):
        train.run_train(small())
    with pytest.raises(ValueError, match="accumulate_grad_batches=16 keeps the batch of 16 with 1"):
        train.run_train(small("trainer.accumulate_grad_batches=8"))
    with pytest.raises(ValueError, match="fewer are not possible"):
        train.run_train(small("trainer.accumulate_grad_batches=16"))
