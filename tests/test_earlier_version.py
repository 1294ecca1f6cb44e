"""What an earlier version wrote is read as today's: its run goes on, its images are continued, its results compare.

The fixture was written before the files of the package were sorted into rooms, and before the renames of
`checkpoint/upgrade.py`: parts, groups, options and fields have other names in it.
"""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from precision import assert_rounded
from small_runs import ROOT, composed, configured

from ddpm.checkpoint.groups import group_names
from ddpm.checkpoint.reading import read_checkpoint
from ddpm.checkpoint.stored_config import is_ours, targets, upgrade_config
from ddpm.checkpoint.upgrade import upgrade_word
from ddpm.commands import sample, train
from ddpm.commands.former_options import FORMER_OPTIONS
from ddpm.config import load
from ddpm.evaluation.comparison import compare_results
from ddpm.metrics.protocol import read_result
from ddpm.runs import run_folder
from ddpm.runs.portable import to_portable
from ddpm.runs.resume import setting_differences

EARLIER = Path(__file__).parent / "fixtures" / "earlier"
WORDS = (
    "experiment=mnist",  # the default then
    *("model.base_channels=4", "model.num_groups=2", "model.attention_levels=[]", "model.patch_size=1"),
    *("data=digits", "data.batch_size=16", "data.num_train=64", "cond=class", "sampler.steps=3", "trainer=cpu"),
    *("trainer.log_every_n_steps=1", "optimizer.warmup_steps=2", "optimizer.cosine_decay=false", "name=before"),
    *("callbacks.samples=null", "callbacks.denoising=null", "logger=csv", "checkpoint_every_n_steps=3"),
)
WRITTEN = json.loads((EARLIER / "options.json").read_text())


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The run, in runs/before of a folder of its own."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EARLIER, "runs/before")
    return Path("runs/before")


def words_of_today(option):
    """What is typed today for `schedule=warmup10` and the like, with the steps of the plain recipe."""
    words = FORMER_OPTIONS.get(option, option if option != "ema=default" else "")
    usual = "" if option.startswith("experiment=") else "experiment=mnist "
    return shlex.split(usual + words.replace("sampler.steps=50", "sampler.steps=100"))


def test_every_option_of_that_time_is_one_of_today_or_its_words_are_known():
    found = {}
    for option, leaf in WRITTEN["options"].items():
        then, _, name = option.partition("/")
        was = upgrade_word(f"{then}={name}")
        group = was.partition("=")[0]
        now = OmegaConf.to_container(
            composed("train", "run_dir=x", *words_of_today(was)), resolve=was in FORMER_OPTIONS
        )[group]
        before = upgrade_config({then: leaf}, option)
        assert all(map(is_ours, targets(before))), option
        if was in FORMER_OPTIONS:
            whole = OmegaConf.create(
                {**OmegaConf.to_container(composed("train", "run_dir=x", "experiment=mnist"), resolve=False), **before}
            )
            before = OmegaConf.to_container(whole, resolve=True)
        found[was] = ({**before[group], **before["fitted"].get(group, {})}, now)
    changed = {option for option, each in found.items() if each[0] != each[1]}
    samplers = {f"sampler={name}" for name in ("dpm_solver_3m", "heun", "pndm", "unipc")}  # with other rules by default
    # cond=attributes, losses with a floor, and class folders in a zip
    assert changed == {"cond=caption", "loss=vlb", "loss=hybrid", "data=zip"} | samplers
    assert {**found["data=zip"][0]["source"], "layout": "auto"} == found["data=zip"][1]["source"]
    for option in ("loss=vlb", "loss=hybrid"):
        assert found[option][0] | {"floor": 1e-12} == found[option][1]
    attributes = composed("train", "run_dir=x", "experiment=mnist", "cond=attributes", "model=caption_unet_tiny").cond
    assert found["cond=caption"][0] == OmegaConf.to_container(attributes, resolve=False)
    assert {option.partition("=")[0] for option in found} == {*group_names(builds=True, may_be_none=False), "data"}


@pytest.mark.parametrize("experiment", sorted({*WRITTEN["experiments"]} - {"mnist_class"}))  # has another recipe today
def test_a_run_of_an_experiment_of_that_time_is_found_by_the_same_words(experiment):
    before = upgrade_config(WRITTEN["experiments"][experiment], experiment)
    now = to_portable(configured("train", "x", *words_of_today(f"experiment={experiment}")))
    has_floor = now["loss"]["_target_"].rpartition(".")[2] in ("VLBLoss", "HybridLoss")
    assert setting_differences(before, now) == ({"loss.floor": ("not set", 1e-12)} if has_floor else {})


def test_a_run_goes_on(run, config):
    words = [*WORDS, "resume.path=auto", "trainer.max_steps=6"]
    assert run_folder.add_run_folder(words, ROOT / "conf")[-1] == "hydra.run.dir=runs/before"
    train.run_train(config("train", *WORDS, "trainer.max_steps=6", "run_dir=whole"))
    train.run_train(config("train", *WORDS, "trainer.max_steps=6", "resume.path=auto", f"run_dir={run}"))
    whole, resumed = (read_checkpoint(each / "checkpoints" / "00000006.ckpt") for each in (Path("whole"), run))
    for key, value in whole["state_dict"].items():
        if isinstance(value, torch.Tensor):  # kernels of another machine round differently
            assert_rounded(resumed["state_dict"][key], value, 100, scale=0.1)  # Adam enlarges roundings


def test_images_are_continued_and_not_made_again(run, config, capsys):
    before = {path.name: path.read_bytes() for path in (run / "samples/images").glob("*.png")}
    words = (f"ckpt={run}/checkpoints/00000003.ckpt", "num_samples=4", "batch_size=2", "format=png", "trainer=cpu")
    sample.run_sample(config("sample", *words, f"out={run / 'samples'}"))
    assert "continuing: 2 of 4 images exist" in capsys.readouterr().out
    after = {path.name: path.read_bytes() for path in (run / "samples/images").glob("*.png")}
    assert len(after) == 4
    assert {name: after[name] for name in before} == before


def test_an_exported_model_is_the_checkpoints(run):
    exported, _ = load.from_checkpoint(run / "export", OmegaConf.create())
    trained, _ = load.from_checkpoint(run / "checkpoints" / "00000003.ckpt", OmegaConf.create())
    ours, theirs = (module.weights("ema").state_dict() for module in (exported, trained))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert exported.condition == trained.condition


def test_a_result_compares(run):
    (path,) = (run / "evaluations").glob("*.json")
    result = read_result(path)
    assert {each.verdict for each in compare_results({"a": result, "b": result})} == {"equal"}
