"""Two networks in turns: as exact as one, in whatever micro-batches, on two processes, after a kill and in float16."""

import copy
import csv
import math
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins.precision import MixedPrecision
from omegaconf import OmegaConf
from precision import assert_rounded
from small_models import QUICK

from ddpm.base.rng import Rng
from ddpm.checkpoint.folder import list_checkpoints, remove, step_of
from ddpm.checkpoint.reading import read_checkpoint
from ddpm.commands import replay, train
from ddpm.commands.verify_resume import compare_runs
from ddpm.config import build
from ddpm.training.callbacks.collapse import AdversaryCollapse

GAME = (
    *("loss=ddgan", "schedule=vp", "schedule.num_timesteps=4", "objective=x0", "clip=none", "sampler.steps=null"),
    *("adversary_optimizer=adam", "loss.r1_every=2", "loss.r1_gamma=0.5", "logger=csv", "data.num_train=64"),
    *("optimizer.eps=1.0", "optimizer.lr=0.1", "optimizer.fused=false", "adversary_optimizer.eps=1.0"),
    *("adversary_optimizer.lr=0.1", "adversary_optimizer.fused=false", "trainer.log_every_n_steps=1"),
)
"""With a large eps Adam's steps are smooth in the gradients, so that rounding stays rounding."""


@pytest.fixture
def game(config, monkeypatch):
    """`game("trainer.max_steps=2", ...)`: the configuration of a training of both."""

    monkeypatch.setenv("DDPM_TRUST", "adversaries")

    def configured(*words, dropout=0.0):
        words = [*(word for word in QUICK if not word.startswith("model.")), *GAME, *words]
        made = copy.deepcopy(config("train", *words))
        made.model = OmegaConf.create({"_target_": "adversaries.Generator", "dropout": dropout})
        OmegaConf.set_struct(made, False)
        made.adversary = OmegaConf.create({"_target_": "adversaries.Adversary"})
        return made

    return configured


def weights(config):
    """Of the last checkpoint, by name."""
    return read_checkpoint(list_checkpoints(Path(config.run_dir) / "checkpoints")[0])["state_dict"]


def trained(config):
    train.run_train(config)
    return {name: value for name, value in weights(config).items() if isinstance(value, torch.Tensor)}


def test_both_learn_and_only_the_models_network_is_averaged(game):
    before = {
        name: value.clone() for name, value in build.module(game()).state_dict().items() if hasattr(value, "clone")
    }
    after = trained(game())
    for part in ("network.stem.weight", "adversary.stem.weight", "averages.copies.0.stem.weight"):
        assert not torch.equal(before[part], after[part]), part
    assert before.keys() == after.keys()
    assert not any(name.startswith("averages") and "adversary" in name for name in after)


def test_micro_batches_change_nothing(game, tmp_path):
    """The adversary sees the whole step before the generator moves."""
    whole = trained(game(f"run_dir={tmp_path / 'whole'}"))
    parts = trained(game("trainer.accumulate_grad_batches=4", f"run_dir={tmp_path / 'parts'}"))
    for name, value in whole.items():
        assert_rounded(parts[name], value, 50, scale=1)


def test_a_step_is_that_of_the_two_losses_written_out(game):
    """Adam's first step is lr g / (|g| + eps) after clipping; the network's gradient meets the moved adversary."""
    config = game("trainer.max_steps=1", "trainer.gradient_clip_val=0.01", "data.batch_size=32", "ema.decay=[]")
    module, data = build.module(config), build.data(config)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    for turn in module.turns:
        terms = module.loss_terms(turn, batch, epoch=0, step=0)
        parameters = list(turn.network.parameters())
        gradients = torch.autograd.grad(terms.total.mean(), parameters)
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            clipped = gradient * min(1, 0.01 / norm)
            parameter.data -= 0.1 * (0.5 if turn.name == "network" else 1) * clipped / (clipped.abs() + 1)
    after = trained(config)
    for name, value in module.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert_rounded(after[name], value, 50, scale=1)


def test_an_epoch_of_steps_that_are_not_whole_is_refused(game):
    with pytest.raises(ValueError, match=r"3 micro-batches \(trainer\.limit_train_batches\) must be divisible by .*=2"):
        train.run_train(game("trainer.accumulate_grad_batches=2", "+trainer.limit_train_batches=3"))


def test_the_turns_draw_apart(game):
    module = build.module(game())
    adversary, network = (module.train_rng.at(0, torch.arange(4)) for _ in range(2))
    assert not torch.equal(adversary.scope("adversary").normal("noise", (8,)), network.normal("noise", (8,)))
    assert Rng(0, "train").at(0, torch.arange(4)).scope("a").rng.scope == "train/a"


def test_in_a_turn_the_other_network_is_frozen(game, monkeypatch):
    config, seen = game("trainer.max_steps=2"), []
    make = build.module

    def watched(*arguments):
        module = make(*arguments)
        original = module.loss_terms

        def spied(turn, *about):
            other = next(each for each in module.turns if each is not turn)
            seen.append((turn.name, any(p.requires_grad for p in other.network.parameters())))
            assert all(p.grad is None for p in other.network.parameters())
            return original(turn, *about)

        module.loss_terms = spied
        return module

    monkeypatch.setattr(build, "module", watched)
    train.run_train(config)
    assert seen == [("adversary", False), ("network", False)] * 2


@pytest.mark.parametrize("words", [(), ("trainer.accumulate_grad_batches=2", "adversary_optimizer.fused=true")])
def test_a_run_resumed_at_any_step_is_the_same_as_one_without_a_break(game, tmp_path, words):
    """Four steps an epoch; dropout, R1 at every second step, two learning rates that fall."""
    words = ("trainer.max_steps=6", "checkpoint_every_n_steps=1", "keep.last=9", "data.num_val=32", *words)
    words += ("trainer.log_every_n_steps=4",)
    train.run_train(game(*words, f"run_dir={tmp_path / 'whole'}", dropout=0.2))
    for step in (1, 4, 5):
        folder = tmp_path / f"resumed{step}"
        train.run_train(game(*words, f"run_dir={folder}", dropout=0.2))
        for path in list_checkpoints(folder / "checkpoints"):
            if step_of(path) > step:
                remove(path)
        train.run_train(game(*words, f"run_dir={folder}", "resume.path=auto", dropout=0.2))
        assert not any(compare_runs(tmp_path / "whole", folder).values()), step


def test_the_numbers_of_both_turns_are_logged_and_the_penalty_only_where_it_is_due(game):
    config = game("trainer.max_steps=4", "callbacks.timestep_loss.num_bands=4")
    train.run_train(config)
    with open(f"{config.run_dir}/metrics.csv") as file:
        table = list(csv.DictReader(file))
    logged = {name: [row["step"] for row in table if row[name]] for name in table[0]}
    for name in ("loss", "lr", "grad_norm", "part/logit", "loss_t/0001-0001"):
        assert logged[f"train/{name}"] == ["1", "2", "3", "4"], name
    for name in ("loss", "lr", "grad_norm", "part/logit_real", "part/logit_fake", "loss_t/0004-0004"):
        assert logged[f"train/adversary/{name}"] == ["1", "2", "3", "4"], name
    assert logged["train/adversary/part/r1"] == ["1", "3"]


class PoisonAt(Callback):
    """Makes a weight of a network infinite before the third step."""

    def __init__(self, name):
        self.name = name

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 2:
            getattr(module, self.name).out.weight.data[0, 0] = math.inf


@pytest.mark.parametrize(
    ("name", "told", "found_first"),
    [
        ("adversary", "loss of the turn of the adversary", "the output of adversary.out"),
        ("network", "gradient of the turn of the network", "the output of out"),
    ],
)
def test_a_bad_turn_is_named_and_replayed(game, monkeypatch, tmp_path, name, told, found_first):
    make = build.trainer

    def trainer(*arguments):
        made = make(*arguments)
        made.callbacks.insert(0, PoisonAt(name))
        return made

    monkeypatch.setattr(build, "trainer", trainer)
    config = game("trainer.max_steps=6", "trainer.log_every_n_steps=5", "trainer.accumulate_grad_batches=2")
    with pytest.raises(FloatingPointError, match=f"{told} became NaN or infinite at step 3"):
        train.run_train(config)
    found = replay.replay(tmp_path / "run" / "nonfinite" / "00000003.pt")
    assert found[0] == found_first


class Overflowing(torch.amp.GradScaler):
    def scale(self, outputs):
        return super().scale(outputs) * math.inf


class Scaled(MixedPrecision):
    """Losses that are scaled as for float16, computed in float32, so that only the scaling itself can show."""

    def __init__(self, scaler):
        super().__init__("16-mixed", "cpu", scaler)

    def forward_context(self):
        return nullcontext()


@pytest.fixture
def scaled(monkeypatch):
    """`scaled(torch.amp.GradScaler("cpu"))`: the training to come scales its losses."""
    make = build.trainer

    def use(scaler):
        def trainer(*arguments):
            made = make(*arguments)
            made.strategy.precision_plugin = Scaled(scaler)
            return made

        monkeypatch.setattr(build, "trainer", trainer)

    return use


CLIPPED = ("trainer.gradient_clip_val=0.01", "optimizer.fused=true", "adversary_optimizer.fused=true")


def test_a_scaled_loss_trains_the_same_weights_of_both(game, scaled, tmp_path):
    plain = trained(game(*CLIPPED, "optimizer.fused=false", f"run_dir={tmp_path / 'plain'}"))
    scaled(torch.amp.GradScaler("cpu", init_scale=2.0**16))
    found = trained(game(*CLIPPED, f"run_dir={tmp_path / 'scaled'}"))
    for name, value in plain.items():
        assert_rounded(found[name], value, 50, scale=1)


def test_a_scaled_loss_trains_the_same_weights_of_one_network(small, scaled, tmp_path):
    words = ("trainer.gradient_clip_val=0.01", "optimizer.eps=1.0", "optimizer.lr=0.1")
    plain = trained(small(*words, f"run_dir={tmp_path / 'plain'}"))
    scaled(torch.amp.GradScaler("cpu", init_scale=2.0**16))
    found = trained(small(*words, f"run_dir={tmp_path / 'scaled'}"))
    for name, value in plain.items():
        assert_rounded(found[name], value, 50, scale=1)


@pytest.mark.parametrize("kind", ["one", "both"])
def test_a_step_that_overflows_is_skipped_without_alarm_and_its_scale_is_saved(small, game, scaled, kind):
    """The scale is halved once a step. No weight, average or learning rate moves."""
    config = (game if kind == "both" else small)("trainer.max_steps=3", "optimizer.cosine_decay=true")
    before = build.module(config).state_dict()
    scaled(Overflowing("cpu", init_scale=2.0**16))
    train.run_train(config)
    stored = read_checkpoint(list_checkpoints(Path(config.run_dir) / "checkpoints")[0])
    assert stored["global_step"] == 3
    assert stored["Scaled"]["scale"] == 2.0**13
    for name, value in before.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(stored["state_dict"][name], value), name
    assert all(schedule["last_epoch"] == 0 for schedule in stored["lr_schedulers"])


@pytest.mark.parametrize("kind", ["one", "both"])
def test_a_scale_that_cannot_be_halved_any_more_is_an_alarm(small, game, scaled, kind):
    config = (game if kind == "both" else small)("trainer.max_steps=9", "trainer.log_every_n_steps=4")
    scaled(Overflowing("cpu", init_scale=2.0))
    with pytest.raises(FloatingPointError, match=r"the gradient .*became NaN or infinite at step 2"):
        train.run_train(config)


def test_an_adversary_that_has_won_is_said_once(game):
    config = game("trainer.max_steps=6", "trainer.log_every_n_steps=1")
    config.callbacks.collapse.smallest_loss = 100.0  # any loss is below
    config.callbacks.collapse.patience = 3
    with pytest.warns(UserWarning, match=r"step 3: for 3 logs the adversary has told real from fake too well") as told:
        train.run_train(config)
    assert len([each for each in told if "too well" in str(each.message)]) == 1
    assert AdversaryCollapse(1.0, 0.0, 1).state_dict() == {"in_a_row": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adversary": None}, "this loss trains against an adversary: choose one, as adversary=ddgan_small"),
        ({"adversary_optimizer": None}, "an adversary needs its own optimizer: add adversary_optimizer=adam"),
        ({"loss": {"_target_": "ddpm.diffusion.losses.simple.SimpleLoss", "_partial_": True}}, "has nothing to do"),
    ],
)
def test_what_does_not_go_together_is_one_error(game, change, message):
    config = game()
    config.merge_with(change) if "loss" not in change else config.__setattr__("loss", change["loss"])
    with pytest.raises(ValueError, match=message):
        build.module(config)


@pytest.mark.parametrize(("gamma", "compiles"), [(0.0, True), (0.5, False)])
def test_an_adversary_is_compiled_unless_it_is_differentiated_twice(game, gamma, compiles):
    module = build.module(game("compile=true", f"loss.r1_gamma={gamma}"))
    assert module.network._compiled_call_impl is not None
    assert (module.adversary._compiled_call_impl is not None) == compiles


def test_several_networks_are_not_sharded(game):
    with pytest.raises(ValueError, match=r"trainer\.strategy=fsdp shards one network"):
        build.module(game("trainer.strategy=fsdp"))
