"""The last lines of a training and of a sweep, and the log file."""

import re
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from processes import Command, ended
from small_runs import SMALL

from ddpm.commands.summary import next_commands
from ddpm.commands.sweep_table import SweepTable
from ddpm.diffusion.conditions.base import NoCondition
from ddpm.diffusion.conditions.low_resolution import LowResolution


def test_a_sweep_ends_with_a_table_of_what_differs_and_each_run_with_its_next_commands(tmp_path):
    words = (*SMALL, "logger=csv", "data.num_val=8", "+trainer.val_check_interval=1", "objective=eps,v")
    code, output = ended(Command("train.py", "-m", *words, "hydra.sweep.dir=sweep", folder=tmp_path))
    assert code == 0, output
    assert (
        len(re.findall(r"next:\n  \S*ddpm sample ckpt=.*\n  \S*ddpm evaluate .* metric=fid\n  \S*ddpm report ", output))
        == 2
    )
    assert len(re.findall(r"^done: 4 steps, 64 images, in 0:0\d:\d\d$", output, re.MULTILINE)) == 2
    heading, first, second = output.split("\n\n")[-1].splitlines()[:3]
    assert heading.split() == ["settings", "val/loss"]
    for number, line, objective in ((0, first, "eps"), (1, second, "v")):
        folder, setting, loss = line.split()
        assert (folder, setting) == (f"sweep/{number}", f"objective={objective}")
        rows = (tmp_path / folder / "metrics.csv").read_text().splitlines()
        losses = [row.split(",")[rows[0].split(",").index("val/loss")] for row in rows[1:]]
        assert f"{float(losses[-1]):.5g}" == loss
        best = min((float(value), step) for step, value in enumerate(losses, 1) if value)
        assert f"val/loss: {loss} at step 4, best {best[0]:.5g}" in output
        log = (tmp_path / folder / "train.log").read_text()
        for text in (" parameters, 4 steps of 16", "schedule: ", "step 4: train/loss ", "done: 4 steps", "val/loss "):
            assert text in log
    assert re.search(r"next:\n  \S*ddpm report sweep\n$", output)


NO_CONDITION = NoCondition()


def model(has_prior=True, condition=NO_CONDITION):
    return SimpleNamespace(
        sampler=SimpleNamespace(process=SimpleNamespace(has_prior=has_prior)), sample_condition=condition
    )


def test_the_next_command_of_a_model_that_needs_images_is_the_task_that_has_them():
    for given, task in ((model(has_prior=False), "restoration"), (model(condition=LowResolution(2, 0.0)), "upsample")):
        for num_val, split in ((5, ""), (0, " task.split=train")):
            config = OmegaConf.create({"run_dir": "RUN", "data": {"num_val": num_val}})
            sample, *_ = next_commands(config, SimpleNamespace(network=None, model=given))
            assert sample.endswith(f" sample ckpt=RUN task={task}{split}")


@pytest.mark.parametrize(
    ("network", "commands"),
    [
        (SimpleNamespace(), ["sample ckpt=RUN", "evaluate ckpt=RUN metric=fid", "report RUN"]),
        (SimpleNamespace(no_samples="a classifier"), ["report RUN"]),
        (SimpleNamespace(no_samples="", reconstructs=True), ["evaluate ckpt=RUN metric=reconstruction", "report RUN"]),
    ],
)
def test_the_next_commands_are_those_that_the_network_can_be_used_with(network, commands):
    found = next_commands(OmegaConf.create({"run_dir": "RUN"}), SimpleNamespace(network=network, model=model()))
    assert [line.partition("ddpm ")[2] for line in found] == commands


def test_the_table_of_a_sweep_names_runs_by_what_differs_and_not_by_what_was_typed(tmp_path, capsys):
    for number, typed in enumerate(["[schedule=cosine, seed=0]", "[seed=1]"]):
        run = tmp_path / str(number)
        (run / "checkpoints").mkdir(parents=True)
        (run / ".hydra").mkdir()
        (run / ".hydra" / "overrides.yaml").write_text(typed)
        (run / "checkpoints" / "config.yaml").write_text(f"seed: {number}\nloss: same\n")
        (run / "metrics.csv").write_text("step,train/loss\n2,0.5\n")
    SweepTable().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    shown = capsys.readouterr().out
    assert "seed=0" in shown
    assert "seed=1" in shown
    assert "schedule" not in shown
