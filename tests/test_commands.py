"""The commands as a person types them, in processes of their own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import Command, usual
from small_runs import ROOT
from small_runs import SMALL as WITHOUT_LOGGER

SMALL = [word for word in WITHOUT_LOGGER if word != "logger=none"]


def run(script, *arguments, folder, expect=0, forked=False, **environment):
    """A command at its place in the repository, its output and error; run in an empty folder.

    forked: from this process, which saves the seconds of loading.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "LOCAL_RANK", "NETRC"))}
    clean |= {"OMP_NUM_THREADS": "1", "NETRC": str(folder / "no-netrc"), **environment}
    if forked:
        process = Command(script, *arguments, folder=folder, environment=clean)
        output, _ = process.communicate()
        assert process.returncode == expect, output
        return output
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *usual(script, arguments)],
        cwd=folder, env=clean, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A training with the default loggers, and what it said."""
    folder = tmp_path_factory.mktemp("commands")
    output = run("train.py", *SMALL, "hydra.run.dir=runs/one", folder=folder)
    return folder, output


def test_training_without_a_key_goes_offline_and_says_how_to_sync(runs):
    _, output = runs
    assert re.match(r"train: experiment=\w+ data=digits, in .*; importing torch and Lightning\n", output)
    assert len(re.findall(r"^W&B runs offline. To send this run: \S*wandb sync ", output, re.MULTILINE)) == 1


def test_training_says_where_everything_lies(runs):
    _, output = runs
    for line in ("checkpoint", "samples/ema", "samples/raw", "denoising", "metrics", "W&B"):
        path = next(text.split(maxsplit=1)[1] for text in output.splitlines() if text.startswith(f"  {line} "))
        assert Path(path).exists(), line


def test_the_offline_run_holds_the_numbers_the_config_and_the_pictures(runs, offline_run):
    folder, _ = runs
    run = offline_run(folder / "runs" / "one")
    config, keys, captions = run.config, set(), []
    for record in run.records:
        for item in record.history.item:
            keys.add(item.key or item.nested_key[0])
            if list(item.nested_key) == ["samples/ema", "captions"]:
                captions += json.loads(item.value_json)
    assert {"train/loss", "train/lr", "train/grad_norm", "sys/images_per_second", "trainer/global_step"} <= keys
    assert {"samples/ema", "samples/raw", "denoising"} <= keys
    assert config["schedule"]["num_timesteps"] == 1000
    assert config["data"]["batch_size"] == 16
    assert config["loss"]["weight"]["_target_"].endswith("uniform"), "interpolations are resolved"
    assert captions == ["step 4, ema weights, Ancestral, 3 steps"]
    assert len(list(run.file.parent.glob("files/media/images/**/*.png"))) >= 3
    console = {record.WhichOneof("record_type") for record in run.records} & {"output", "output_raw"}
    assert not console, "the redraws of a progress bar would be most of the file"
    assert "train.log" in run.saved
    assert "data=digits: 1,797 training images" in (run.file.parent / "files" / "train.log").read_text()


@pytest.mark.slow
def test_a_key_without_network_falls_back_to_offline(tmp_path):
    output = run(
        "train.py", *SMALL, "hydra.run.dir=run", "logger.wandb.init_timeout=3",
        folder=tmp_path, WANDB_API_KEY="0" * 40, WANDB_BASE_URL="http://127.0.0.1:9",
    )  # fmt: skip
    assert "this run is logged offline" in output
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.slow
def test_samples_do_not_depend_on_the_batch_size_or_the_number_of_processes(runs):
    folder, _ = runs
    made = {}
    for name, *settings in [("a", "batch_size=64"), ("b", "batch_size=7", "trainer.devices=2")]:
        run(
            "sample.py", "ckpt=latest", "num_samples=33", "format=npz", f"out={name}", "trainer=cpu", *settings,
            folder=folder,
        )  # fmt: skip
        made[name] = np.load(folder / name / "samples.npz")["arr_0"]
    assert made["a"].shape == (33, 8, 8, 1)
    assert made["a"].dtype == np.uint8
    assert len(np.unique(made["a"].reshape(33, -1), axis=0)) == 33
    # the noise is bitwise the same; kernels of another batch size may round differently, seldom across a level
    assert np.abs(made["a"].astype(int) - made["b"].astype(int)).max() <= 1


def test_png_files_grid_and_gif_show_the_same_samples(runs):
    folder, _ = runs
    output = run(
        "sample.py", "ckpt=runs/one/checkpoints/last.ckpt", "num_samples=5", "format=png", "out=pngs", "gif=true",
        "sampler=ddim", "sampler.steps=4", "weights=raw", "trainer=cpu", folder=folder, forked=True,
    )  # fmt: skip
    assert "5 samples in pngs" in output
    files = sorted((folder / "pngs" / "images").iterdir())
    assert [file.name for file in files] == [f"{number:06d}.png" for number in range(5)]
    grid = np.asarray(Image.open(folder / "pngs" / "grid.png"))
    assert np.array_equal(grid[2:66:8, 2:66:8, 0], np.asarray(Image.open(files[0])))  # enlarged to 64 pixels
    with Image.open(folder / "pngs" / "denoising.gif") as gif:
        assert gif.n_frames == 4
        gif.seek(3)
        frame = np.asarray(gif.convert("RGB"))[-grid.shape[0] :, : grid.shape[1]]  # below its time
        assert np.abs(frame.astype(int) - grid.astype(int)).max() <= 8  # a GIF's palette


def test_evaluation_without_weights_says_what_is_missing(runs):
    folder, _ = runs
    words = ("ckpt=latest", "metric=fid", "num_samples=20")
    output = run("evaluate.py", *words, folder=folder, expect=2, forked=True, TORCH_HOME=str(folder))
    assert "weights-inception-2015-12-05-6726825d.pth" in output
    assert "features.weights=PATH" in output
    assert "features=cifar10 for colour images" in output
    assert "Traceback" not in output


def test_a_wrong_name_exits_with_code_two_and_one_line(runs):
    folder, _ = runs
    output = run("train.py", "schedule=cosin", folder=folder, expect=2)
    assert output.startswith("error: schedule must be one of")
    assert "Traceback" not in output


def test_help_needs_no_environment_beyond_hydra(runs):
    folder, _ = runs
    output = run("train.py", "--help", folder=folder)
    assert "schedule=cosine" in output


def test_a_sweep_makes_one_folder_and_one_wandb_run_a_job(tmp_path, offline_run):
    typed = (*SMALL, "trainer.max_steps=4", "logger.wandb.project=${oc.env:SECRET}", "hydra.sweep.dir=sweep")
    run("train.py", "-m", "schedule=linear,cosine", *typed, folder=tmp_path, forked=True, SECRET="p")
    jobs = [tmp_path / "sweep" / number for number in "01"]
    runs = [offline_run(job) for job in jobs]
    assert all((job / "metrics.csv").exists() for job in jobs)
    ids = [json.loads((job / "wandb_run.json").read_text())["run_id"] for job in jobs]
    assert [each.about.run_id for each in runs] == ids
    assert ids[0] != ids[1]
    for each, schedule in zip(runs, ("linear", "cosine"), strict=True):
        assert each.about.run_group == "sweep"
        assert each.about.display_name.startswith(f"mnist schedule={schedule} model.base_channels=8 ")
        assert {f"schedule={schedule}", "logger.wandb.project=${oc.env:SECRET}"} < set(each.about.tags)
        assert (each.config["options"]["schedule"], each.config["num_parameters"]) == (schedule, 41609)
        assert each.config["schedule"]["_target_"].endswith(f".{schedule}")
        assert (min(each.steps), max(each.steps), each.exits) == (2, 4, [0])


def test_a_folder_of_a_diffusers_model_is_a_checkpoint(tmp_path):
    """Its samples are those of diffusers' own pipeline with our noise: here DDIM, which draws none after the first."""
    from diffusers import DDIMScheduler, UNet2DModel

    from ddpm.base.rng import Rng

    torch.manual_seed(0)
    settings = {"downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6}
    network = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None, **settings,
    ).eval()  # fmt: skip
    scheduler = DDIMScheduler(num_train_timesteps=100, timestep_spacing="trailing", clip_sample=True)
    scheduler.register_to_config(prediction_type="epsilon")
    network.save_pretrained(tmp_path / "model" / "unet")
    scheduler.save_pretrained(tmp_path / "model" / "scheduler")
    run(
        "sample.py", "ckpt=model", "sampler=ddim", "sampler.steps=10", "num_samples=4", "format=npz", "out=made",
        "trainer=cpu", folder=tmp_path, forked=True,
    )  # fmt: skip
    ours = np.load(tmp_path / "made" / "samples.npz")["arr_0"]

    x = Rng(0, "sample").at(100, torch.arange(4)).normal("prior", (1, 8, 8))
    scheduler.set_timesteps(10)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t).sample, t, x, use_clipped_model_output=True).prev_sample
    theirs = ((x.clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(ours.astype(float) - theirs).mean() < 1.0
