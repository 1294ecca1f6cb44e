"""Names of earlier versions: in files they are read as today's, on the command line the error says today's."""

import importlib
import json
import re
import sys

import pytest
import torch
from omegaconf import OmegaConf
from small_runs import ROOT

from ddpm.base.nested import flatten
from ddpm.checkpoint import groups
from ddpm.checkpoint.reading import read_checkpoint
from ddpm.checkpoint.stored_config import is_ours, upgrade_config
from ddpm.checkpoint.upgrade import FIELDS, GROUPS, MOVED, OPTIONS, TARGETS, VALUES, earlier_word, upgrade, upgrade_word
from ddpm.commands import cli, evaluate, train
from ddpm.config import analytic, build, load
from ddpm.evaluation.comparison import read_upgraded
from ddpm.model.diffusion_model import DiffusionModel
from ddpm.runs.portable import to_portable
from ddpm.runs.resume import setting_differences

CONF = ROOT / "conf"
EARLIER = ROOT / "tests" / "fixtures" / "earlier"
LAST = {today: then for then, today in GROUPS.items()}

TYPED = [
    *((f"{old}.field=1", f"{old}.field", f"{new}.field") for old, new in GROUPS.items()),
    *((f"+{old}=custom", old, new) for old, new in GROUPS.items()),
    *((f"~{old}", old, new) for old, new in GROUPS.items()),
    *(
        (f"{name}={old}", f"{name}={old}", f"{group}={new}")
        for group, options in OPTIONS.items()
        for name in dict.fromkeys([group, LAST.get(group, group)])
        for old, new in options.items()
    ),
    *(
        (f"{group}.{old}=7", f"{group}.{old}", f"{group}.{new}")
        for group, fields in FIELDS.items()
        for old, new in fields.items()
    ),
    *(
        (f"{group}.{field}={str(old).lower()}", f"{group}.{field}={str(old).lower()}", f"{group}.{field}={new}")
        for (group, field), values in VALUES.items()
        for old, new in values.items()
    ),
    *((f"{old}=7", old, new) for old, new in MOVED.items()),
    (*["resume.allow=[trainer.timeout_minutes]"] * 2, "resume.allow=[limits.timeout_minutes]"),
    ("sampler.grid.rho=7", "sampler.grid.rho", "sampler.timestep_spacing.rho"),
    ("denoiser=clipped,plain", "denoiser=clipped,plain", "clip=static,none"),
    ("process.same_noise_back=false", "process.same_noise_back=false", "process.reverse_noise=white"),
    ("guidance.order=[denoiser,guidance]", "guidance.order=[denoiser,guidance]", "guidance.order=[clip,guidance]"),
    ("resume.allow=[grid.rho]", "resume.allow=[grid.rho]", "resume.allow=[timestep_spacing.rho]"),
]


@pytest.mark.parametrize(("word", "then", "today"), TYPED)
def test_an_earlier_word_is_answered_by_todays(word, then, today):
    assert earlier_word(word) == (then, today)
    assert earlier_word(today) is None


def test_a_field_that_moved_is_read_in_its_group(small):
    stored = to_portable(small("limits.timeout_minutes=5"))
    earlier = {**stored, "trainer": {**stored["trainer"], "timeout_minutes": 5}}
    del earlier["limits"]
    assert upgrade_config(earlier, "a file")["limits"] == {"max_minutes": None, "timeout_minutes": 5}
    assert upgrade_config(earlier, "a file")["trainer"] == stored["trainer"]
    assert setting_differences(upgrade_config(earlier, "a file"), stored) == {}


@pytest.mark.parametrize("name", ["train", "sample", "evaluate", "export"])
def test_the_commands_say_so_in_one_line(monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "grid=quadratic"])
    with pytest.raises(SystemExit) as ended:
        cli.run_command(lambda: None, CONF, name)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: there is no 'grid'; its current name is 'timestep_spacing'\n")


def test_no_word_of_today_is_an_earlier_one(config):
    words = [f"{path.parent.relative_to(CONF)}={path.stem}" for path in CONF.glob("*/*.yaml")]
    for path in CONF.glob("*/*.yaml"):
        leaf = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        words += [f"{path.parent.name}.{key}=1" for key in flatten(leaf)]
    for name in ("train", "sample", "evaluate"):
        words += [f"{key}=1" for key in flatten(OmegaConf.to_container(config(name), resolve=False))]
    assert [word for word in words if upgrade_word(word) != word] == []


def test_every_row_leads_to_what_there_is():
    assert set(GROUPS.values()) <= set(groups.group_names())
    for group, options in OPTIONS.items():
        assert all((CONF / group / f"{new}.yaml").exists() for new in options.values()), group
    for group, fields in FIELDS.items():
        written = "".join(path.read_text() for path in (CONF / group).glob("*.yaml"))
        assert all(re.search(rf"^{new}:", written, re.MULTILINE) for new in fields.values()), group
    for old, new in TARGETS.items():
        assert importlib.import_module(new.removesuffix(".")) if new.endswith(".") else is_ours(new), old


def test_a_configuration_of_today_stays_as_it_is(small):
    stored = to_portable(small("clip=dynamic", "guidance=classifier_free", "cond=class"))
    assert upgrade(stored) == stored


def test_references_follow_and_a_text_of_the_data_is_no_reference():
    stored = {"grid": {"times": [1]}, "sampler": {"grid": "${grid}", "steps": "${sampler.grid.steps}"}}
    stored |= {"data": {"name": "${grid}", "size": "${denoiser.largest}"}}
    assert upgrade(stored) == {
        "timestep_spacing": {"times": [1]},
        "sampler": {"timestep_spacing": "${timestep_spacing}", "steps": "${sampler.timestep_spacing.steps}"},
        "data": {"name": "${grid}", "size": "${clip.largest}"},
    }


def test_a_group_that_came_later_has_the_meaning_of_the_time_before_it():
    older = upgrade_config({"denoiser": {"_target_": "ddpm.diffusion.denoiser.plain", "_partial_": True}}, "a file")
    assert older["clip"]["_target_"] == "ddpm.diffusion.denoiser.no_wrapper"
    assert older["guidance"]["order"] == ["guidance", "clip"]
    assert older["noise"] == groups.WHITE


def test_a_result_is_described_in_todays_names():
    (path,) = (EARLIER / "evaluations").glob("*.json")
    subject = read_upgraded(path).subject
    assert subject["clip"] == "StaticThresholding()"
    assert subject["sampler"] == "Ancestral(timestep_spacing=uniform, variance=FixedSmall())"
    assert "denoiser" not in subject


def in_earlier_words(identity):
    """The settings of a model that was made with the defaults, as they were written before the renames."""
    identity = {key: value for key, value in identity.items() if key != "clip"}
    clipped = {"_target_": "ddpm.diffusion.denoiser.Clipped", "_partial_": True}
    process = {"_target_": "ddpm.diffusion.gaussian.GaussianDiffusion", "_partial_": True, "same_noise_back": True}
    return {**identity, "denoiser": clipped, "process": process}


@pytest.mark.filterwarnings("ignore:FID of 10 generated")
def test_images_that_an_earlier_version_evaluated_are_not_made_again(small, config, tmp_path, monkeypatch):
    train.run_train(small())
    words = (f"ckpt={tmp_path}/run", "metric=fid", "features=mnist", "num_samples=10", "trainer=cpu")
    evaluate.run_evaluate(config("evaluate", *words))
    (folder,) = (tmp_path / "run" / "generated").iterdir()
    folder = folder.rename(folder.with_name(f"{folder.name.rpartition('_')[0]}_0e0e0e0e"))
    record = json.loads((folder / "generation.json").read_text())
    sampler = record["sampler"].replace("timestep_spacing=", "grid=")
    assert sampler != record["sampler"]
    (folder / "generation.json").write_text(json.dumps({**in_earlier_words(record), "sampler": sampler}))
    monkeypatch.setattr(DiffusionModel, "generate", None)  # would fail if an image were made
    evaluate.run_evaluate(config("evaluate", *words))
    assert [*(tmp_path / "run" / "generated").iterdir()] == [folder]
    monkeypatch.undo()
    evaluate.run_evaluate(config("evaluate", *words, "clip=none"))
    assert len([*(tmp_path / "run" / "generated").iterdir()]) == 2, "other images are not taken for these"


def test_a_variance_that_an_earlier_version_estimated_is_found(small, config, tmp_path, monkeypatch):
    train.run_train(small())
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    words = ("sampler=ancestral", "variance=analytic", "sampler.steps=4")
    settings = config("sample", f"ckpt={path}", "trainer=cpu", *words)

    def errors():
        module, stored = load.from_checkpoint(path, load.changes(settings))
        module.use_for_prediction("best", 0)
        analytic.prepare(module, stored, path, build.trainer(settings))
        return module.sampler.variance.errors

    expected = errors()
    (file,) = (tmp_path / "run" / "analytic").iterdir()
    found = json.loads(file.read_text())
    found["about"]["model"] = in_earlier_words(found["about"]["model"])
    found["digest"] = analytic.short_digest({key: value for key, value in found.items() if key != "digest"})
    file.unlink()
    file.with_name(f"{file.name.rpartition('_')[0]}_0e0e0e0e.json").write_text(json.dumps(found))
    monkeypatch.setattr(analytic, "measure_errors", None)  # would fail if it were estimated again
    assert errors() == expected


def test_what_a_time_sampler_of_an_earlier_version_has_seen_is_resumed(small, tmp_path):
    words = ("time_sampler=loss_aware", "time_sampler.num_losses=1", "schedule.num_timesteps=20", "sampler.steps=3")
    train.run_train(small(*words, "trainer.max_steps=4"))
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    today = torch.load(path, weights_only=True)
    then = {**today, "format": 2, "callbacks": {**today["callbacks"], "Scores": {"last_step": 4}}}
    renamed = {key.replace("time_sampler.", "timesteps."): value for key, value in today["state_dict"].items()}
    assert renamed.keys() != today["state_dict"].keys()
    torch.save({**then, "state_dict": renamed}, tmp_path / "then.ckpt")
    read = read_checkpoint(tmp_path / "then.ckpt")
    assert read["state_dict"].keys() == today["state_dict"].keys()
    assert read["callbacks"]["EvaluateDuringTraining"] == {"last_step": 4}
    load.from_checkpoint(tmp_path / "then.ckpt", OmegaConf.create())
    assert setting_differences(read["config"], today["config"]) == {}
