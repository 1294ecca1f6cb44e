"""Which folder a run gets: its own if it is new, and the one it goes on in if that is found."""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from processes import Command
from small_runs import ROOT, SMALL

from ddpm.commands import train
from ddpm.commands.defaults import changes_of_defaults
from ddpm.commands.short_forms import expand_short_forms
from ddpm.runs import lease, run_folder

CONF = ROOT / "conf"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """`folder("resume=auto", ...)`: the folder that a training of these words gets."""
    monkeypatch.chdir(tmp_path)

    def chosen(*words):
        words = expand_short_forms(["experiment=mnist", *SMALL, *words], CONF, "train")
        added = run_folder.add_run_folder(words, CONF)[len(words) :]
        value = OverridesParser.create().parse_override(added[0]).value() if added else None
        return value and Path(OmegaConf.create({"seed": 0, "dir": value}).dir)

    return chosen


@pytest.fixture
def run(copied, tmp_path):
    """`run("mine", ...)`: a small run in runs/mine that has ended."""
    return lambda name, *words: copied(*words, to=f"runs/{name}").relative_to(tmp_path)


# New runs


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(folder, monkeypatch):
    assert folder("run_dir=x") is None, "the user's choice"
    now = OmegaConf.create({"name": "now", "hydra": {name: {"dir": f"runs/now_{name}"} for name in ("run", "sweep")}})
    monkeypatch.setattr(run_folder, "compose_config", lambda *given, **more: now)
    folders = [folder(), folder("seed=1"), folder(), folder("-m", "seed=1,2"), folder("-m")]
    assert [str(each) for each in folders] == [
        *("runs/now_run", "runs/now_run_2", "runs/now_run_3", "runs/now_sweep", "runs/now_sweep_2"),
    ]
    assert all(each.is_dir() for each in folders)


@pytest.mark.parametrize("multirun", [(), ("-m",)])
def test_a_folder_in_which_only_hydra_has_written_is_removed(folder, multirun):
    with run_folder.without_unused_folders():
        made = folder(*multirun)
        (made / "0/.hydra").mkdir(parents=True)
        for name in ("0/.hydra/config.yaml", "0/train.log", "multirun.yaml"):
            (made / name).write_text("")
        used, named = folder(*multirun, "seed=1"), Path("runs/mine")
        (used / "0").mkdir()
        (used / "0/metrics.csv").write_text("step")
        named.mkdir()
        assert folder(*multirun, f"hydra.{'sweep' if multirun else 'run'}.dir=runs/mine") is None
    assert sorted(Path("runs").iterdir()) == sorted([used, named])


def test_a_folder_of_a_mistaken_command_is_removed(tmp_path):
    failed = Command("train.py", *SMALL, "seed=-1", folder=tmp_path)
    assert failed.wait() == 2
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["''", "null", "a/b", "../x"])
def test_a_name_is_a_part_of_the_folders_name(folder, name):
    with pytest.raises(ValueError, match=r"name must be a text without /"):
        folder(f"name={name}")
    assert not Path("runs").exists()


def test_commands_started_together_both_keep_their_weights(tmp_path):
    words = [*SMALL, "trainer.max_steps=1", "name=one"]
    both = [Command("train.py", *words, f"seed={seed}", folder=tmp_path) for seed in (1, 2)]
    assert [process.wait() for process in both] == [0, 0]
    assert len(list((tmp_path / "runs").glob("*/checkpoints/last.ckpt"))) == 2


def test_a_second_training_in_a_folder_in_use_is_refused(small, tmp_path):
    hold = (
        "import sys; from pathlib import Path; from ddpm.runs.lease import lock_folder\n"
        "with lock_folder(Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path / "run")], **pipes) as other:
        other.stdout.readline()
        with pytest.raises(ValueError, match=r"run_dir=.* is in use by another"):
            train.run_train(small())
        other.kill()
    train.run_train(small())


def test_a_worker_that_outlives_a_killed_training_does_not_keep_its_folder(tmp_path):
    with lease.lock_folder(tmp_path):
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        worker.start()
    with lease.lock_folder(tmp_path):
        assert worker.is_alive()
    worker.kill()


# Going on


def test_auto_finds_the_run_of_the_same_settings_and_of_allowed_ones(folder, run):
    run("mine")
    assert folder("resume=auto", "trainer.devices=2") == Path("runs/mine")
    assert folder("resume=auto", "data.batch_size=32") != Path("runs/mine")
    assert folder("resume=auto", "data.batch_size=32", "resume.allow=[data.batch_size]") == Path("runs/mine")


NAMED = ("resume=runs/mine", "resume='runs/mine'", 'resume="runs/mine/checkpoints"')


@pytest.mark.parametrize("word", [*NAMED, "resume=auto", "resume='auto'", "resume.path=auto"])
def test_a_run_that_is_named_or_found_goes_on_in_its_folder_however_that_is_written(folder, run, word):
    run("mine")
    assert folder(word) == Path("runs/mine")


def test_what_is_named_and_not_there_is_an_error(folder):
    with pytest.raises(ValueError, match=r"resume must be auto, a checkpoint or a run folder, .* 'runs/gone'"):
        folder("resume=runs/gone")


@pytest.mark.parametrize("name", ["a=b", "it's", "a,b", "a b", "[x]", "$x", "x\\", "{a:b}"])
def test_a_folder_of_any_name_is_found_and_read_back_by_hydra(folder, run, name):
    found = run("mine").rename(Path("runs") / name)
    assert folder("resume=auto") == found


def test_a_folder_whose_name_hydra_would_replace_is_named_and_passed_over(folder, run, capsys):
    run("mine").rename(Path("runs") / "${seed}")
    assert folder("resume=auto") != Path("runs/${seed}")
    assert "runs/${seed}/checkpoints/config.yaml cannot be read and is skipped" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["resume=", "resume=''", "resume=runs/mine,runs/other", "resume='runs/\\${seed}'"])
def test_what_is_no_path_of_one_run_is_refused(folder, run, word):
    run("mine")
    with pytest.raises(ValueError, match=r"resume must be auto, never, or the path of one run"):
        folder("-m", word)


def test_a_run_is_found_by_the_words_that_changed_a_default(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["experiment=mnist_class", *SMALL, "loss=vlb"]
    made = config("train", *words, "run_dir=runs/mine")
    changes_of_defaults(made, words)
    train.run_train(made)
    added = run_folder.add_run_folder([*words, "resume=auto"], CONF, adapt=changes_of_defaults)
    assert added[-1] == "hydra.run.dir=runs/mine"


def test_a_run_with_classes_is_found_before_its_data_are_read(folder, run):
    words = ("cond=class", "data.num_classes=null")
    run("mine", *words)
    assert folder("resume=auto", *words) == Path("runs/mine")
    assert folder("resume=auto", *words, "cond.names=[a,b,c,d,e,f,g,h,i,j]") != Path("runs/mine")


def test_a_run_of_an_earlier_version_is_found_by_what_its_absent_fields_mean(folder, run):
    path = run("mine") / "checkpoints" / "config.yaml"
    stored = yaml.safe_load(path.read_text())
    for group in ("noise", "guidance", "cond", "fitted"):
        del stored[group]
    del stored["process"]["reverse_noise"], stored["time_sampler"]["largest"]
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(stored)))
    assert folder("resume=auto") == Path("runs/mine")


def test_auto_says_field_by_field_why_a_run_of_the_name_does_not_fit(folder, run, capsys):
    run("mine")
    run("other", "name=other")
    assert folder("resume=auto", "data.batch_size=32", "objective=x0") != Path("runs/mine")
    told = capsys.readouterr().err
    assert "resume=auto starts a new run; of those named digits, the nearest is runs/mine" in told
    assert "  data.batch_size: 16 -> 32" in told
    assert "objective._target_" in told
    folder("resume=auto", "name=third")
    assert "nearest" not in capsys.readouterr().err


def aliases():
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    "damage",
    [b"a: [", b"\xff\xfe", aliases(), b"", b"- 1", b"schedule: ${oc.env:HOME}", b"seed: !!python/name:os.system"],
    ids=["cut short", "no text", "aliases", "empty", "a list", "an interpolation", "a python name"],
)
def test_damaged_settings_of_another_run_are_named_and_passed_over(folder, run, damage, capsys):
    run("mine")
    run("zz")
    Path("runs/zz/checkpoints/config.yaml").write_bytes(damage)
    os.utime("runs/mine", (0, 0))  # so the damaged one is looked at first
    assert folder("resume=auto") == Path("runs/mine")
    assert "runs/zz/checkpoints/config.yaml cannot be read and is skipped" in capsys.readouterr().err


def test_a_checksum_that_is_no_text_is_damage_of_that_checkpoint_alone(folder, run, small, capsys, tmp_path):
    run("mine", "checkpoint_every_n_steps=2")
    Path("runs/mine/checkpoints/00000004.ckpt.sha256").write_bytes(b"\xff" * 70)
    words = ("checkpoint_every_n_steps=2", "resume.path=auto", f"run_dir={tmp_path / 'runs' / 'mine'}")
    with pytest.warns(UserWarning, match=r"00000004\.ckpt cannot be used: its sha256 differs"):
        train.run_train(small(*words))
    assert "00000002.ckpt, at step 2" in capsys.readouterr().out
