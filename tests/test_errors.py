"""What a user can get wrong: one line that names the field, the value and the remedy, before any long work."""

import re
import sys
from pathlib import Path

import pytest
import torch
from hydra.errors import HydraException

from ddpm.commands import cli, evaluate, sample, train
from ddpm.commands.config_errors import config_error
from ddpm.commands.no_effect import refuse_what_has_no_effect
from ddpm.commands.short_forms import expand_short_forms
from ddpm.config.compose import compose
from ddpm.config.wiring import name_source
from ddpm.runs.arguments import explain_quotes

CONF = Path(__file__).resolve().parents[1] / "conf"

BAD_TRAINING = [
    # a name that does not exist, and the nearest that does
    (["scheduel=cosine"], "there is no 'scheduel' to set; did you mean 'schedule'?"),
    (["schedule=cosin"], "schedule must be one of constant, cosine, .* got 'cosin'; did you mean 'cosine'?"),
    (["trainer.max_step=3"], "there is no 'trainer.max_step' to set; did you mean 'trainer.max_steps'?"),
    (["optimizer.learning_rate=1"], "there is no 'optimizer.learning_rate' to set; did you mean 'optimizer.lr'?"),
    # the last part of a path, and the names of other programs
    (["lr=1e-3"], "there is no 'lr' to set; did you mean 'optimizer.lr'?"),
    (["trainer.lr=1e-3"], "did you mean 'optimizer.lr'?"),
    (["batch_size=8"], "did you mean 'data.batch_size'?"),
    (["schedule.T=500"], "there is no 'schedule.T' to set; did you mean 'schedule.num_timesteps'?"),
    (["epochs=3"], "did you mean 'trainer.max_steps'?"),
    (["gpus=2"], "did you mean 'trainer.devices'?"),
    (["fp16=true"], "did you mean 'trainer.precision'?"),
    (["objective=epsilon"], "objective must be one of eps, logit, v, x0, got 'epsilon'; did you mean 'eps'?"),
    (["SEED=1"], "there is no 'SEED' to set; did you mean 'seed'?"),
    (["experiment=cifar10"], "experiment must be one of .*; did you mean 'ldm_cifar10'?"),
    (["+trainer.max_epoch=1"], "trainer.max_epoch is not a setting of Lightning's Trainer; did you mean 'max_epochs'?"),
    (["model.channels=64"], "there is no 'model.channels' to set; did you mean 'model.base_channels'?"),
    (["optimizer.warmup=9"], "did you mean 'optimizer.warmup_steps'?"),
    (["data=folder", "data.path=x"], "did you mean 'data.source.root'?"),
    (["device=cuda"], "did you mean 'trainer.accelerator'?"),
    (["trainer=gpu"], "trainer must be one of .*, got 'gpu'; did you mean 'default'?"),
    (["sampler=DDIM"], "got 'DDIM'; did you mean 'ddim'?"),
    (["experiment=conf/experiment/mnist.yaml"], "got 'conf/experiment/mnist.yaml'; did you mean 'mnist'?"),
    (["sampler.eta=1"], "there is no 'sampler.eta' to set; it is a field of sampler=ddim$"),
    # settings of other commands, and additions that nothing reads
    (["ckpt=x"], "there is no 'ckpt' to set; ckpt is a setting of sample.py and evaluate.py$"),
    (["task=inpaint"], "there is no 'task' to set; task is a setting of sample.py$"),
    (["model.channel_mults={a:1}"], "model.channel_mults must be a list, got {a:1}"),
    # parts that do not go together
    (["process=binomial"], "process=binomial needs pixels of -1 and 1: choose codec=binary"),
    (["metric=nll"], "metric=nll measures a trained model, not images: use it in evaluate.py"),
    (["metric=nll", "dry_run=true"], "metric=nll measures a trained model, not images: use it in evaluate.py"),
    (["model=oracle_mixture"], "model=MixtureOracle is a closed-form denoiser, which cannot be trained"),
    # a value of the wrong kind or out of range
    (["schedule.num_timesteps=abc"], "schedule.num_timesteps must be an integer, got 'abc'"),
    (["schedule.num_timesteps=0"], "schedule.num_timesteps must be a positive integer, got 0"),
    (["schedule.max_beta=2"], "schedule.max_beta must be a number at least 0 and at most 1, got 2"),
    (["schedule=linear", "schedule.beta_end=-1"], "schedule.beta_end must be greater than 0 and less than 1, got -1"),
    (
        ["schedule=linear", "schedule.num_timesteps=10"],
        "schedule.beta_end must be less than 1 .* take more num_timesteps",
    ),
    (["schedule=sigmoid", "schedule.end=-5"], r"schedule.end must be greater than start \(-3\), got -5"),
    (["sampler.steps=2000"], "sampler.steps must be an integer in 1..1000, got 2000"),
    (["sampler=ddim", "sampler.eta=1.5"], "sampler.eta must be a number at least 0 and at most 1, got 1.5"),
    (["weight=min_snr", "weight.gamma=-1"], "weight.gamma must be greater than 0, got -1"),
    (["error=huber", "error.delta=0"], "error.delta must be greater than 0, got 0"),
    (["ema.decay=1.0"], "ema.decay must be different numbers, each below 1"),
    (["optimizer.lr=-1"], "optimizer.lr must be a number at least 0, got -1"),
    (["optimizer.betas=[0.9,1.0]"], "optimizer.betas must be two numbers"),
    (["model.num_groups=3"], "model.*num_groups"),
    (["data.batch_size=0"], "data.batch_size must be a positive integer, got 0"),
    (["data.size=27"], "data.*28 x 28|size"),
    (["data.flip=yess"], "data.flip must be true or false, got 'yess'"),
    (["trainer.max_steps=abc"], "trainer.max_steps must be an integer, got 'abc'"),
    (["seed=-1"], "seed must be an integer of at least 0, got -1"),
    (["compile=perhaps"], "compile must be true or false, got 'perhaps'"),
    (["trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val must be a number at least 0, got -1"),
    (["trainer.precision=16-true"], "trainer.precision must be one of auto, .*, bf16-mixed-slow, got '16-true'"),
    (["trainer.precision=16-mixed"], "trainer.precision=16-mixed is for GPUs"),
    (["trainer.strategy=foo"], "strategy='foo'"),
    # what does not go together
    (["schedule=jsd", "objective=eps"], "objective=eps cannot .* use objective=v or objective=x0"),
    (["data.batch_size=33", "trainer.accumulate_grad_batches=2"], "data.batch_size .* use 32 or 34"),
    (["data.batch_size=6000"], "data.batch_size must be at most the number of training images, 5000"),
    (["data=folder", "data.source.root=nowhere"], "nowhere"),
    (["data=cifar10"], "data=parquet"),
    # what this machine lacks
    (["trainer.devices=4096"], "trainer.devices=4096, but this machine has .* set trainer.devices="),
    (["trainer.accelerator=mps"], "trainer.accelerator=mps has no float64"),
    (["resume.path=nowhere.ckpt"], "resume=nowhere.ckpt must be a checkpoint or a run folder, but does not exist"),
]


def error_of_training(config, overrides):
    try:
        made = config("train", "logger=none", "trainer.max_steps=2", *overrides)
    except HydraException as error:
        return config_error(error, CONF, "train")
    with pytest.raises(ValueError) as caught:
        train.run_train(made)
    return name_source(made, str(caught.value))


@pytest.mark.parametrize(("overrides", "message"), BAD_TRAINING, ids=lambda value: " ".join(value)[:60])
def test_bad_input_to_train_gets_one_clear_error(config, monkeypatch, overrides, message, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *overrides])
    found = error_of_training(config, overrides)
    assert re.search(message, found), found
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_more_gpus_than_there_are_is_refused_with_their_number(config):
    found = error_of_training(config, ["schedule=cosine", f"trainer.devices={torch.cuda.device_count() + 1}"])
    assert f"this machine has {torch.cuda.device_count()} NVIDIA GPU" in found


BAD_SAMPLING = [
    (["ckpt=nowhere.ckpt"], "ckpt must be a checkpoint file, and there is none at 'nowhere.ckpt'"),
    (["ckpt=null"], "ckpt must be the path of a checkpoint or of a run, or latest, got None"),
    (["ckpt=''"], "ckpt must be the path of a checkpoint or of a run, or latest, got ''"),
    (["ckpt=latest"], "ckpt=latest finds no intact checkpoint under runs"),
    (["ckpt=latest", "num_samples=0"], "num_samples must be a positive integer, got 0"),
    (["ckpt=latest", "batch_size=-2"], "batch_size must be a positive integer, got -2"),
    (["ckpt=latest", "format=gif"], "format must be one of grid, png, jpg, npz, got 'gif'"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD_SAMPLING, ids=lambda value: " ".join(value)[:60])
def test_bad_input_to_sample_gets_one_clear_error(config, monkeypatch, overrides, message, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        sample.run_sample(config("sample", *overrides))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lr", "1e-3"], "--lr 1e-3: a setting is written FIELD=VALUE, without dashes, as optimizer.lr=1e-3"),
        (["--batch-size=8", "data=cifar10"], "--batch-size=8: .* as data.batch_size=8"),
        (["data=mnist", "--schedule", "linear"], "--schedule linear: .* as schedule=linear"),
        (["--unknown"], "--unknown: .* without dashes; --help lists all"),
        (
            ["--config", "x.yaml"],
            r"^a setting must be written FIELD=VALUE, without dashes \(ambiguous option: --config",
        ),
    ],
)
def test_an_option_with_dashes_is_answered_with_the_form_of_settings(words, message):
    with pytest.raises(ValueError, match=message):
        expand_short_forms(words, CONF, "train")


def test_one_value_in_the_place_of_several_fields_is_refused():
    with pytest.raises(ValueError, match=r"^ema has fields of its own, ema.decay, .*: set these, got ema=0.999$"):
        expand_short_forms(["ema=0.999"], CONF, "train")
    assert "resume.path=auto" in expand_short_forms(["resume=auto"], CONF, "train")


def test_a_number_for_a_former_group_is_a_number_of_steps():
    assert expand_short_forms(["timesteps=500"], CONF, "train") == ["timesteps=500"]  # Hydra refuses it
    with pytest.raises(HydraException) as caught:
        compose(CONF, "train", ["timesteps=500"])
    assert config_error(caught.value, CONF, "train", ["timesteps=500"]).endswith("'schedule.num_timesteps'?")


def test_steps_of_a_command_without_a_chosen_sampler_are_those_of_a_sampler():
    with pytest.raises(HydraException) as caught:
        compose(CONF, "sample", ["steps=50"])
    assert config_error(caught.value, CONF, "sample", ["steps=50"]).endswith("did you mean 'sampler.steps'?")


def test_a_sampler_field_without_a_sampler_changes_the_stored_one():
    arguments = ["ckpt=x", "sampler.steps=50", "trainer.devices=2"]
    assert expand_short_forms(arguments, CONF, "sample") == [
        "ckpt=x",
        "+sampler.steps=50",
        "trainer.devices=2",
    ]
    chosen = ["sampler=ddim", "sampler.steps=50"]
    assert expand_short_forms(chosen, CONF, "sample") == chosen
    typed = ["task=anomaly", "task.times=[9]", "anomalies=mvtec", "anomalies.root=x"]
    anomaly = ["metric=anomaly", "metric.anomaly.times=[9]"]
    placed = ["anomalies@metric.anomaly.anomalies=mvtec", "metric.anomaly.anomalies.root=x"]
    assert expand_short_forms(typed, CONF, "evaluate") == [*anomaly, *placed]
    assert expand_short_forms(["task=inpaint"], CONF, "sample") == ["task=inpaint"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["loss=vlb", "weight=snr"], "weight=snr has no effect, because the loss VLBLoss has no weight; leave it out"),
        (["adversary_optimizer=adam"], "adversary_optimizer=adam has no effect, because adversary is none; leave"),
        (["evaluate.num_samples=50"], "evaluate.num_samples=50 has no effect, because no metric is chosen, as metric"),
        (["features=inception"], "features=inception has no effect, because no metric is chosen"),
        (["experiment=first_stage_mnist", "objective=v"], "objective=v has no effect, because a first stage generates"),
        (["experiment=classifier_mnist", "sampler=ddim"], "sampler=ddim has no effect, because a classifier generates"),
        *(
            ([f"experiment={name}", word], f"{word} has no effect, because {why}")
            for name, word, why in (
                ("first_stage_mnist", "noise=pyramid", "the loss FirstStageKL does not read it"),
                ("first_stage_mnist", "time_sampler=stratified", "the loss FirstStageKL does not read it"),
                ("vae_mnist", "schedule=cosine", "the loss VAELoss does not read it"),
                ("classifier_mnist", "variance=large", "a classifier generates no images"),
                ("binomial_mnist", "variance=large", "the process BinomialDiffusion does not read it"),
                ("binomial_mnist", "loss.floor=1e-9", "the process BinomialDiffusion does not read it"),
            )
        ),
        (["sampler=ddim", "variance=large"], "because the sampler DDIM and the loss SimpleLoss have no variance"),
    ],
)
def test_a_choice_that_nothing_reads_is_refused(config, typed, message):
    with pytest.raises(ValueError, match=message):
        refuse_what_has_no_effect(config("train", *typed), typed)


IDLE = {
    "train": [
        ("callbacks=none keep.last=9", "no callback reads it"),
        ("~callbacks.samples ~callbacks.denoising sample_every_n_steps=9", "no callback reads it"),
        ("keep.mode=max", "keep.best is null"),
        ("ema.decay=[] ema.warmup=false", r"ema.decay is \[\]"),
        ("data.num_labels=3", "data.label_images is null"),
        ("experiment=mnist optimizer.cosine_decay=false optimizer.min_lr=1e-5", "optimizer.cosine_decay is false"),
        ("adversary=none experiment=first_stage_mnist loss.adversary_start=1", "adversary is none"),
        ("process=blur process.rate=2", "process.growth is constant"),
    ],
    "sample": [
        *((f"ckpt=x {word}", "only train.py reads it") for word in ("trainer.max_steps=5", "+trainer.max_epochs=1")),
        ("ckpt=x task=denoise +data.flip=true", "only train.py reads it"),
        ("ckpt=x task=denoise +data.batch_size=2", "a task reads single images"),
        ("ckpt=x task=degradation sampler=ddim", "task=degradation uses the forward process only"),
        ("ckpt=x task=invert sampler=ddim sampler.steps=9", "task.steps has the numbers of steps"),
        ("ckpt=x task=invert sampler=ddim seed=9", "task=invert draws no noise"),
        ("ckpt=x task=superres task.jump_length=9", "task.num_resamples is 1"),
        ("ckpt=x task=inpaint task.num_resamples=1 task.jump_length=9", "task.num_resamples is 1"),
        ("ckpt=x task=restoration sampler=ddim", "task=restoration uses both algorithms of Cold Diffusion"),
        (
            "ckpt=x task=restoration +sampler.steps=5 variance=small",
            "task=restoration uses both algorithms of Cold Diffusion",
        ),
    ],
    "evaluate": [
        ("ckpt=x trainer.gradient_clip_val=1", "only train.py reads it"),
        ("ckpt=x +data.num_train=5", "only train.py reads it"),
        ("ckpt=x metric=nll features=mnist", "metric=nll does not read it"),
        ("ckpt=x metric=nll_ode sampler=ddim", "metric=nll_ode does not read it"),
        ("ckpt=x metric=[nll,nll_ode] timestep_spacing=trailing", "metric=nll does not read it"),
        ("ckpt=x metric=reconstruction seed=3", "metric=reconstruction does not read it"),
        ("metric=sampler_error model=oracle_gaussian batch_size=3", "metric=sampler_error does not read it"),
        ("ckpt=x metric=reconstruction split=test", "metric=reconstruction does not read it"),
        *((f"images=x {word}", "images=x come from no model") for word in ("sampler=ddim", "seed=3", "weights=raw")),
    ],
}


@pytest.mark.parametrize(("name", "words", "why"), [(name, *each) for name, some in IDLE.items() for each in some])
def test_a_setting_that_the_command_does_not_read_is_refused(config, name, words, why):
    typed = words.split()
    with pytest.raises(ValueError, match=f"^{re.escape(typed[-1].lstrip('+'))} has no effect, because {why}; leave"):
        refuse_what_has_no_effect(config(name, *typed), [word.lstrip("+") for word in typed])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train", "sample_every_n_steps=9 keep.last=9 checkpoint_every_n_steps=3 ema.warmup=false"),
        ("train", "callbacks=first_stage sample_every_n_steps=9 experiment=first_stage_mnist"),
        ("train", "callbacks=none metric=fid sample_every_n_steps=9"),
        ("sample", "ckpt=x trainer=cpu trainer.devices=2 sampler=ddim"),
        ("sample", "ckpt=x task=denoise data=mnist"),
        ("evaluate", "ckpt=x metric=nll split=test seed=3 weights=raw batch_size=2"),
        ("evaluate", "ckpt=x metric=[nll,nll_ode] sampler=ancestral variance=large_published clip=static"),
        ("evaluate", "ckpt=x metric=[fid,nll_ode] timestep_spacing=trailing"),
        ("evaluate", "ckpt=x metric=[nll,fid] features=mnist keep_images=false +data.batch_size=9"),
        ("evaluate", "ckpt=x metric=restoration features=mnist features_batch_size=3"),
        ("evaluate", "images=x data=mnist guidance=none features=mnist split=test"),
        ("evaluate", "metric=sampler_error model=oracle_gaussian seed=3"),
    ],
)
def test_a_setting_that_the_command_reads_is_not_refused(config, name, words):
    refuse_what_has_no_effect(config(name, *words.split()), [word.lstrip("+") for word in words.split()])


@pytest.mark.parametrize(
    "typed",
    [
        ["experiment=first_stage_mnist", "adversary_optimizer.lr=1e-3", "guidance=none"],
        ["experiment=ddgan_mnist", "adversary_optimizer=adam"],
        ["experiment=vae_mnist", "schedule.num_timesteps=1"],
        ["metric=fid", "features=mnist", "evaluate.num_samples=50"],
    ],
)
def test_a_choice_that_is_read_is_not_refused(config, typed):
    refuse_what_has_no_effect(config("train", *typed), typed)


@pytest.mark.parametrize("name", ["export", "check_data", "check_schedule"])
def test_commands_with_other_fields_refuse_nothing(name):
    refuse_what_has_no_effect(compose(CONF, name, []), [])


def test_a_part_that_the_stored_sampler_lacks_is_refused(config, run_of):
    with pytest.raises(ValueError, match="variance has no effect on the stored sampler, DDIM; leave it out"):
        sample.run_sample(config("sample", f"ckpt={run_of('sampler=ddim')}", "variance=large"))


def test_a_field_of_a_metric_is_named_in_full(config, run_of, tmp_path):
    words = ("metric=nll", "metric.nll.num_images=99999", "trainer=cpu", f"out={tmp_path}")
    with pytest.raises(ValueError, match=r"^metric\.nll\.num_images must be an integer in 1\.\."):
        evaluate.run_evaluate(config("evaluate", f"ckpt={run_of('sampler=ddim')}", *words))


def test_a_field_of_a_task_is_named_in_full(config, run_of, tmp_path):
    words = ("task=denoise", "task.split=val", "trainer=cpu", f"out={tmp_path}")
    with pytest.raises(ValueError, match=r"^task\.split must be train or test, or data\.num_val at least 1"):
        sample.run_sample(config("sample", f"ckpt={run_of('sampler=ddim')}", *words))


def test_a_variance_that_the_loss_alone_reads_is_not_refused(config):
    typed = ["sampler=ddim", "variance=learned_range", "loss=hybrid"]
    refuse_what_has_no_effect(config("train", *typed), typed)


REMOVED = {
    "~seed": "~seed: seed is always there and cannot be removed",
    "~model": "~model: model is always there",
    "~data.batch_size=8": "data.batch_size is always there",
    "~callbacks.sample": "there is no 'callbacks.sample' to remove; did you mean 'callbacks.samples'?",
    "~optimizer.rate": "there is no 'optimizer.rate' to remove",
}


@pytest.mark.parametrize("word", REMOVED)
def test_only_one_of_several_parts_can_be_removed(word):
    with pytest.raises(ValueError, match=re.escape(REMOVED[word])):
        expand_short_forms([word], CONF, "train")
    assert expand_short_forms(["~callbacks.samples", "data=digits"], CONF, "train")


@pytest.mark.parametrize("word", ["+foo=3", "++keep.lst=3", "+limits.x=1", "+schedule@foo=linear"])
def test_an_added_field_that_nothing_reads_is_refused(word):
    key = word.lstrip("+").partition("=")[0].rpartition("@")[2]
    with pytest.raises(ValueError, match=f"^there is no '{re.escape(key)}' to set"):
        expand_short_forms([word], CONF, "train")
    for known in ("++keep.last=3", "+trainer.max_epochs=1", "+hydra.job.name=x", "+debug=fast"):
        assert known in expand_short_forms([known], CONF, "train")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("schedule=[cosine,linear]", "schedule takes one option; schedule=A,B with -m runs a job with each"),
        ("features=mnist", "features=mnist has no effect, because no metric is chosen, as metric=fid"),
        ("evaluate.num_samples=8", "evaluate.num_samples=8 has no effect, because no metric"),
    ],
)
def test_what_nothing_reads_is_refused_with_the_remedy(config, typed, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        refuse_what_has_no_effect(config("train", typed), [typed])
    refuse_what_has_no_effect(config("train", "metric=fid", "features=mnist"), ["metric=fid", "features=mnist"])
    refuse_what_has_no_effect(config("train", "metric=[fid,kid]"), ["metric=[fid,kid]"])


def test_the_folder_of_a_sweep_is_that_of_run_dir():
    words = expand_short_forms(["-m", "seed=1,2", "run_dir=x"], CONF, "train")
    assert "hydra.sweep.dir=x" in words
    assert "hydra.run.dir=x" not in words


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("sample", ["task=denoise", "num_samples=3"], "there is no 'num_samples' to set; it is one of task=generate"),
        ("sample", ["task=denoise", "gif=true"], "there is no 'gif' to set; it is one of task=generate"),
        ("evaluate", ["task=inpaint"], "there is no 'task' to set; task is a setting of sample.py"),
        ("sample", ["logger=csv"], "there is no 'logger' to set; logger is a setting of train.py"),
        ("evaluate", ["task=anomal"], "metric must be one of all, anomaly, .*did you mean 'anomaly'"),
    ],
)
def test_a_field_or_task_of_another_command_or_task_is_said_to_be_there(monkeypatch, name, words, message):
    monkeypatch.setattr(sys, "argv", [name, *words])
    with pytest.raises(HydraException) as caught:
        compose(CONF, name, expand_short_forms(words, CONF, name))
    assert re.match(message, config_error(caught.value, CONF, name, expand_short_forms(words, CONF, name), words))


def test_no_internal_field_is_suggested(config, run_of):
    with pytest.raises(ValueError, match=r"^there is no 'codec\.first_stage' to set$"):
        sample.run_sample(config("sample", f"ckpt={run_of('sampler=ddim')}", "+codec.first_stage=x"))


def test_an_ambiguous_value_is_named_as_it_was_typed(monkeypatch):
    typed = ["run_dir=a,b"]
    words = expand_short_forms(typed, CONF, "train")
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    with pytest.raises(HydraException) as raised:
        compose(CONF, "train", words)
    said = config_error(raised.value, CONF, "train", typed=typed)
    assert said.startswith(
        'run_dir=a,b has several values: write "run_dir=[a,b]" for a list, add -m for one job of each, or for one text'
        " write \"run_dir='"
    )


@pytest.mark.parametrize("word", ["objective=null", "objective=3", "objective={a: 1}"])
def test_a_value_that_is_no_name_of_an_option_is_named_with_its_group(monkeypatch, capsys, word):
    monkeypatch.setattr(sys, "argv", ["train.py", word])
    with pytest.raises(SystemExit):
        cli.run_command(lambda: compose(CONF, "train", [word]), CONF, "train")
    value = word.partition("=")[2]
    assert f"error: objective must be one of eps, logit, v, x0, got '{value}'\n" in capsys.readouterr().err


def test_an_argument_is_named_itself_if_another_has_its_value():
    assert "got ' seed=3'" in explain_quotes(" seed=3", ["sampler.steps=3", " seed=3"], shell=True)


def test_a_short_form_that_does_not_apply_is_named_as_it_was_typed(monkeypatch):
    typed = ["metric=is", "anomalies=mvtec"]
    words = expand_short_forms(typed, CONF, "evaluate")
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *words])
    with pytest.raises(HydraException) as raised:
        compose(CONF, "evaluate", words)
    assert config_error(raised.value, CONF, "evaluate", typed=typed).startswith("there is no 'anomalies' to set")
