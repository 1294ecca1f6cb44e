"""Whole runs in process: what they leave behind, and what they may not depend on."""

import csv
from pathlib import Path

import pytest
import torch
from precision import assert_rounded, roundings

from ddpm.commands import train
from ddpm.config import build
from ddpm.runs import devices
from ddpm.training.callbacks.time_limit import TimeLimit


def trained(config):
    train.run_train(config)
    return torch.load(f"{config.run_dir}/checkpoints/last.ckpt", weights_only=True)


def rows(config):
    with open(f"{config.run_dir}/metrics.csv") as file:
        return list(csv.DictReader(file))


def same_weights(one, other):
    return all(torch.equal(value, other["state_dict"][key]) for key, value in weights(one))


def weights(checkpoint):
    return [(key, value) for key, value in checkpoint["state_dict"].items() if isinstance(value, torch.Tensor)]


def test_a_run_leaves_checkpoint_pictures_and_one_row_of_metrics_a_log_step(small, tmp_path):
    config = small("logger=csv", "sample_every_n_steps=2", "checkpoint_every_n_steps=2")
    checkpoint = trained(config)
    run = tmp_path / "run"
    assert checkpoint["global_step"] == 4
    assert checkpoint["config"]["schedule"]["num_timesteps"] == 1000
    assert str(run) not in str(checkpoint["config"])
    assert {path.name for path in (run / "samples" / "ema").iterdir()} == {"00000002.png", "00000004.png"}
    assert (run / "samples" / "raw" / "00000004.png").stat().st_size > 0
    assert (run / "denoising" / "00000004.png").stat().st_size > 0
    assert (run / "checkpoints" / "00000002.ckpt").exists()
    found = rows(config)
    assert [row["step"] for row in found] == ["2", "4"]
    for row in found:
        assert 0 < float(row["train/loss"]) < 3
        assert float(row["train/images"]) == 16 * int(row["step"])
        assert float(row["train/grad_norm"]) > 0
        assert float(row["sys/images_per_second"]) > 0
        bands = [float(value) for key, value in row.items() if key.startswith("train/loss_t/") and value]
        assert bands


def test_raw_and_averaged_weights_are_both_in_the_checkpoint_and_differ(small):
    config = small("ema.decay=[0.5,0.9]", "ema.warmup=false")
    checkpoint = trained(config)
    state = checkpoint["state_dict"]
    raw, first, second = (
        state[f"{place}.stem.weight"] for place in ("network", "averages.copies.0", "averages.copies.1")
    )
    assert not torch.equal(raw, first)
    assert not torch.equal(first, second)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(small):
    one = trained(small("seed=3", "model.dropout=0.1"))
    assert same_weights(one, trained(small("seed=3", "model.dropout=0.1")))
    assert not same_weights(one, trained(small("seed=4", "model.dropout=0.1")))


def test_accumulation_changes_the_weights_by_rounding_only(small):
    """With a large eps, Adam's steps are smooth in the gradients, so that rounding stays rounding.

    A gradient is off by some hundred roundings, of which a rate of 0.01 leaves one at each of four steps.
    """
    settings = ("optimizer.eps=1.0", "optimizer.lr=1.0e-2")
    one = trained(small(*settings))
    two = trained(small(*settings, "trainer.accumulate_grad_batches=4"))
    for key, value in weights(one):
        assert_rounded(two["state_dict"][key], value, 8, scale=1)


def test_gradients_are_clipped_and_their_norm_before_is_logged(small):
    config = small("logger=csv", "trainer.gradient_clip_val=1.0e-9", "optimizer.eps=1.0", "ema.decay=[]")
    before = build.module(config).network.state_dict()
    after = trained(config)["state_dict"]
    moved = max((after[f"network.{key}"] - value).abs().max() for key, value in before.items())
    assert moved < 1e-9
    assert float(rows(config)[-1]["train/grad_norm"]) > 1e-3


def test_validation_is_the_same_at_every_time_and_batch_size(small):
    """Held-out loss depends on the weights alone: a rate of 0 leaves it as it is, and so does the batch size."""
    still = ("logger=csv", "optimizer.lr=0", "data.num_val=32", "trainer.val_check_interval=2")

    def val_losses(*overrides):
        config = small(*still, *overrides)
        train.run_train(config)
        return [float(row["val/loss"]) for row in rows(config) if row.get("val/loss")]

    one, other = val_losses(), val_losses("data.eval_batch_size=5")
    assert len(one) == 2
    assert one[0] == one[1]
    assert other[0] == pytest.approx(one[0], rel=roundings(20))


def test_bf16_trains(small):
    assert all(torch.isfinite(value).all() for _, value in weights(trained(small("trainer.precision=bf16-mixed-slow"))))


@pytest.mark.parametrize("command", ["train", "sample", "evaluate"])
def test_bf16_is_refused_on_a_cpu_that_is_slow_in_it_unless_it_is_forced(config, monkeypatch, command):
    monkeypatch.setattr(devices, "convolution_seconds", {torch.float32: 0.001, torch.bfloat16: 0.0235}.get)
    settings = ("trainer=cpu", *(["ckpt=none"] if command == "sample" else []))
    told = r"bf16-mixed is slow .* 23\.50 ms in bfloat16 and 1\.00 ms in float32; .* trainer\.precision=bf16-mixed-slow"
    with pytest.raises(ValueError, match=told):
        build.trainer(config(command, *settings, "trainer.precision=bf16-mixed"))
    assert build.trainer(config(command, *settings, "trainer.precision=bf16-mixed-slow")).precision == "bf16-mixed"
    assert devices.precision("bf16-mixed", "gpu") == "bf16-mixed"


@pytest.mark.parametrize(("limit", "steps"), [("max_epochs=1", 4), ("max_time=00:00:00:03", 3)])
def test_a_training_that_ends_early_says_so_and_goes_on_to_the_same_weights(
    small, tmp_path, monkeypatch, capsys, limit, steps
):
    settings = ("data.num_train=64", "trainer.max_steps=6", "model.dropout=0.1")
    whole = trained(small(*settings, f"run_dir={tmp_path / 'whole'}"))
    seconds = iter(range(100))  # one a step, after one at the start
    monkeypatch.setattr(TimeLimit, "time_elapsed", lambda *_: next(seconds))
    capsys.readouterr()
    assert trained(small(*settings, f"++trainer.{limit}"))["global_step"] == steps
    told = capsys.readouterr().out
    assert "at most 6 steps of 16" in told
    assert f"done: {steps} of 6 steps, {16 * steps} images; trainer.{limit} ended the training" in told
    assert len(list(named_files(told))) == 4
    assert same_weights(whole, trained(small(*settings, "resume.path=auto")))
    assert f"done: 6 steps; this run started at step {steps} and used {16 * (6 - steps)}" in capsys.readouterr().out


def test_a_run_with_nothing_left_to_train_names_the_checkpoint_that_there_is(small, run_of, tmp_path, capsys):
    checkpoint = run_of() / "checkpoints" / "last.ckpt"
    capsys.readouterr()
    train.run_train(small(f"resume.path={checkpoint}", f"run_dir={tmp_path / 'other'}"))
    told = capsys.readouterr().out
    assert "done: 4 steps; this run started at step 4 and used 0 images" in told
    assert next(named_files(told)) == checkpoint


def named_files(told):
    for line in told.partition("done: ")[2].partition("\n\n")[0].splitlines()[1:]:
        path = Path(line.split(maxsplit=1)[1])
        assert path.exists()
        yield path


def test_channels_last_changes_nothing_but_rounding(small):
    settings = ("optimizer.eps=1.0", "optimizer.lr=1.0e-2")
    one, other = trained(small(*settings)), trained(small(*settings, "channels_last=true"))
    for key, value in weights(one):
        assert_rounded(other["state_dict"][key], value, 8, scale=1)  # as for accumulation


def test_compiling_changes_no_key_and_no_weight(small):
    """The kernels themselves are torch's; here the compiled calls are followed without making any."""
    settings = ("callbacks.progress.every_seconds=1000", "trainer.max_steps=2")
    one = trained(small(*settings))
    with torch.compiler.set_stance("force_eager"):
        other = trained(small(*settings, "compile=true"))
    assert one["state_dict"].keys() == other["state_dict"].keys()
    assert same_weights(one, other)


def test_overfitting_a_handful_of_images_lowers_the_loss_far(small):
    config = small("data.num_train=16", "trainer.max_steps=150", "logger=csv", "optimizer.lr=1.0e-2", "objective=x0")
    train.run_train(config)
    losses = [float(row["train/loss"]) for row in rows(config)]
    assert losses[-1] < 0.5 * losses[0]


def test_a_dry_run_tells_the_cost_and_trains_nothing(config, capsys, tmp_path):
    train.run_train(config("train", "experiment=ddpm_cifar10", "dry_run=true", "trainer=cpu"))
    output = capsys.readouterr().out
    assert "parameters         35,746,307" in output
    flops = float(output.split("FLOPs per image")[1].split()[0])
    assert 11 < flops < 12.5  # torch counts 12.44 for diffusers' network, which upsamples before it convolves
    assert not list(tmp_path.rglob("*.ckpt"))


def test_another_seed_gives_other_samples_and_the_same_seed_the_same(small):
    module = build.module(small("model.base_channels=8")).model.eval()
    ids = torch.arange(3)
    one = module.generate(ids, "raw")
    module.use_for_prediction("raw", seed=1)
    other = module.generate(ids, "raw")
    assert not torch.equal(one, other)
    module.use_for_prediction("raw", seed=0)
    assert torch.equal(module.generate(ids, "raw"), one)


def test_another_model_is_not_resumed(small, run_of):
    checkpoint = run_of() / "checkpoints" / "last.ckpt"
    allowed = "resume.allow=[model,trainer.max_steps]"
    with pytest.raises(ValueError, match=r"resume=.*last.ckpt holds another model: \d+ weights differ"):
        train.run_train(small(f"resume.path={checkpoint}", "model.base_channels=16", allowed))


def test_an_average_that_does_not_exist_is_refused_before_the_first_step(small, tmp_path):
    with pytest.raises(ValueError, match=r"weights must be one of raw, ema, ema_0\.996, got 'ema_0\.5'"):
        train.run_train(small("callbacks.samples.weights=[ema_0.5]"))
    assert not list(tmp_path.rglob("*.ckpt"))
