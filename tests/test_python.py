"""`import ddpm`: a trained model as an object, the same images as the command, in anybody's program."""

import itertools
import re
import subprocess
import sys
import threading
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import ROOT, SMALL, command_environment

import ddpm
from ddpm.base.images import to_uint8
from ddpm.commands import sample, train

PAGE = (ROOT / "docs" / "python.md").read_text()


@pytest.fixture
def trained(small, tmp_path, monkeypatch):
    """A small model of four classes, guided as the default experiment, in runs/mine, and tmp_path as the folder to work
    in."""
    monkeypatch.chdir(tmp_path)
    words = ("cond=class", "guidance=classifier_free", "ema.decay=[0.5]", "callbacks.samples=null")
    train.run_train(small("run_dir=runs/mine", *words))
    return tmp_path


def drawn(config, *words):
    sample.run_sample(config("sample", "ckpt=latest", "out=out", "format=npz", "trainer=cpu", *words))
    return torch.from_numpy(np.load("out/samples.npz")["arr_0"]).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ((), {}),
        (("sampler=ddim", "sampler.steps=2", "weights=raw", "seed=3", "batch_size=2"), {}),
        (("guidance=classifier_free", "guidance.scale=2", "class=3"), {"label": 3}),
        (("class=[1,none]",), {"label": [1, "none"]}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_images_are_those_of_the_command(trained, config, words, arguments):
    expected = drawn(config, "num_samples=5", *words)
    model = ddpm.load("latest", *[word for word in words if not word.startswith("class")], device="cpu")
    images = model.sample(5, **arguments)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    assert torch.equal(to_uint8(images), expected)


def test_arguments_of_a_call_hold_for_that_call_alone(trained):
    model = ddpm.load("runs/mine", device="cpu")
    before = model.sample(2)
    assert not torch.equal(model.sample(2, seed=1), before)
    assert not torch.equal(model.sample(2, weights="raw"), before)
    assert torch.equal(model.sample(2), before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sampler=ddmi"], "sampler must be one of .* 'ddmi'; did you mean 'ddim'"),
        (["sampler.stepz=3"], "no 'sampler.stepz' to set"),
        (["num_samples=4"], r"num_samples=4 has no effect on load\(\); it is for sample\(num_samples"),
        (["out=there"], "out=there has no effect on load"),
        (["weights=ema_0.9"], "weights must be one of raw, ema"),
        (["trainer.accelerator=mps"], "trainer.accelerator=mps"),
        (["sampler.steps=${nope}"], "'nope' not found"),
        (["sampler.eta=[1"], r"^the value of sampler\.eta must have closed brackets and quotes; .*sampler\.eta='\[1'$"),
        (["grid=rho"], "there is no 'grid'; its current name is 'timestep_spacing'"),
    ],
)
def test_a_wrong_word_is_one_error(trained, words, message):
    with pytest.raises(ValueError, match=message) as caught:
        ddpm.load("latest", *words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples must be"),
        ({"num_samples": 2, "label": 99}, "class must be 0 to 9"),
        ({"num_samples": 2, "prompt": "three"}, "prompt has no effect"),
        ({"num_samples": 2, "seed": -1}, "seed must be"),
        ({"num_samples": 2, "weights": "best_ever"}, "weights must be one of"),
    ],
)
def test_a_wrong_argument_is_one_error_and_changes_nothing(trained, arguments, message):
    model = ddpm.load("latest", device="cpu")
    with pytest.raises(ValueError, match=message):
        model.sample(**arguments)
    assert (model.predict_weights, model.sample_rng.seed) == ("ema", 0)


def test_the_name_of_a_file_is_text(trained):
    (trained / "runs" / "mine").rename(trained / "a=b,${x} run")
    assert ddpm.load(trained / "a=b,${x} run", device="cpu").sample(1).shape == (1, 1, 8, 8)


PROGRAM = """
import sys, threading, hydra
from omegaconf import OmegaConf

@hydra.main(version_base=None, config_path=None)
def main(config):
    from hydra.core.hydra_config import HydraConfig
    import ddpm
    before = HydraConfig.get().runtime.output_dir
    assert "torch" not in sys.modules
    model = ddpm.load("latest", "sampler.steps=2", device="cpu")
    found = []
    thread = threading.Thread(target=lambda: found.append(ddpm.load("latest", device="cpu").sample(2)))
    thread.start(); thread.join()
    assert model.sample(2).shape == found[0].shape
    assert HydraConfig.get().runtime.output_dir == before
    assert OmegaConf.create({"a": "${hydra:runtime.output_dir}"}).a == before
    loaded = {"lightning", "pytorch_lightning", "wandb", "torchmetrics"} & set(sys.modules)
    assert not loaded, loaded
    print("fine")

main()
"""


def test_it_works_inside_another_hydra_program_and_imports_no_lightning(trained):
    (trained / "theirs.py").write_text(PROGRAM)
    environment = {**command_environment(), "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "theirs.py", "+x=1"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=trained)
    assert done.stdout == "fine\n", done.stderr


def test_two_threads_load_at_once(trained):
    images = {}

    def load(steps):
        images[steps] = ddpm.load("latest", f"sampler.steps={steps}", device="cpu").sample(2)

    threads = [threading.Thread(target=load, args=(steps,)) for steps in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(images) == {2, 3}
    for steps, found in images.items():
        assert torch.equal(found, ddpm.load("latest", f"sampler.steps={steps}", device="cpu").sample(2))


def test_the_page_runs_as_it_stands(trained):
    module = types.ModuleType("page")
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(snippet, "python.md", "exec"), module.__dict__)
    assert module.images.shape == (8, 1, 8, 8)
    assert module.prediction.x0.shape == (2, 1, 8, 8)
    # eps = x / 10 at each of the 20 steps of DDIM, eta 0, is x0 = (x - sigma x / 10) / alpha: a factor each
    alpha_bar = module.schedule.alpha_bar.double()
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    times = module.sampler.times(1000)
    factors = [alpha[s] * (1 - 0.1 * sigma[t]) / alpha[t] + 0.1 * sigma[s] for t, s in itertools.pairwise(times)]
    start = module.process.prior((3, 32, 32), module.Rng(0, "sample").at(1000, torch.arange(2)))
    assert torch.allclose(module.samples, start * torch.stack(factors).prod().float(), rtol=1e-4)


@pytest.mark.slow
def test_a_wheel_trains_loads_and_samples_from_another_folder(tmp_path):
    """Installed beside today's dependencies, with nothing of the checkout in reach."""
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    names = {path.relative_to(site / "ddpm" / "program" / "conf") for path in site.rglob("program/conf/**/*.yaml")}
    assert names == {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    for classifier in ("mnist", "cifar10"):
        assert (site / "ddpm" / "metrics" / "extractors" / f"{classifier}.safetensors").is_file()
    work = tmp_path / "work"
    work.mkdir()
    environment = {**command_environment(), "PYTHONPATH": str(site)}

    def run(*words):
        return subprocess.run(
            [sys.executable, *words], check=True, capture_output=True, text=True, env=environment, cwd=work
        ).stdout

    assert Path(run("-c", "import ddpm; print(ddpm.__file__)").strip()).is_relative_to(site)
    run("-m", "ddpm", "train", *SMALL, "run_dir=runs/mine", "trainer.devices=2")
    printed = run("-c", "import ddpm; print(tuple(ddpm.load('latest').sample(3).shape))")
    assert printed == "(3, 1, 8, 8)\n"
    assert "3 samples in" in run("-m", "ddpm", "sample", "ckpt=latest", "num_samples=3", "trainer=cpu")
