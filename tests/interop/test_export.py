"""Exported folders: the samples are those of the checkpoint, bitwise in ours and in float64 in diffusers' pipeline."""

import json
import os
import subprocess
import sys

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.ddpm import pipeline_ddpm
from diffusers.schedulers import scheduling_ddpm
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from networks import awake
from precision import InDouble, assert_same
from safetensors.torch import load_file, save_file
from small_models import Quarters
from torch import nn

from ddpm.commands import evaluate, export, sample
from ddpm.commands.options import options_of
from ddpm.config import build, exported, load, wiring
from ddpm.interop import diffusers as interop
from ddpm.interop import exported_folder, pipeline
from ddpm.interop import weights as files_of_weights
from ddpm.metrics.protocol import read_result

AVERAGES = ("ema.decay=[0.5,0.9]",)
IDS = torch.arange(3)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def randomize(module):
    """Every weight random, in the raw network and in each average another: fresh, some are zero and all are equal."""
    return awake(module).float()


@pytest.fixture
def checkpoint(small, tmp_path):
    """`checkpoint("objective=v", ...)`: the file of a model that nobody trained."""

    def saved(*overrides):
        module = randomize(build.module(small(*AVERAGES, *overrides)).model)
        path = tmp_path / "run" / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"config": module.config, "state_dict": module.state_dict()}, path)
        return path

    return saved


@pytest.fixture
def exports(tmp_path):
    """`exports(path, "format=diffusers", ...)`: the folder that the command writes."""

    def exported(path, *overrides, out="out"):
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(export.CONF), version_base="1.3"):
            export.run_export(compose("export", overrides=[f"ckpt={path}", f"out={tmp_path / out}", *overrides]))
        return tmp_path / out

    return exported


def in_double(module):
    """The module in float64, from the x_T that it has in float32."""
    prior = module.start(IDS).double()
    module.start = lambda ids, images=None: prior
    return module.double()


def loaded(config, path, *overrides):
    return load.from_checkpoint(path, load.changes(config("sample", f"ckpt={path}", *overrides)))[0]


# Our own folder


@pytest.mark.parametrize("weights", ["raw", "ema", "ema_0.5", "ema_0.9", "best"])
def test_the_samples_of_an_exported_folder_are_bitwise_those_of_the_checkpoint(checkpoint, exports, config, weights):
    path = checkpoint("model.patch_size=2", "objective=v")
    folder = exports(path, "format=safetensors", f"weights={weights}")
    one, other = loaded(config, path), loaded(config, folder)
    one.use_for_prediction(weights, seed=1)
    other.use_for_prediction("best", seed=1)
    expected, found = one.generate(IDS, one.predict_weights), other.generate(IDS, other.predict_weights)
    assert torch.equal(found, expected)
    assert expected.std() > 0.1
    assert other.describe_weights(other.predict_weights) == one.describe_weights(one.predict_weights)


def test_a_folder_holds_one_set_of_weights_and_says_which(checkpoint, exports):
    path = checkpoint()
    state = torch.load(path, weights_only=True)["state_dict"]
    for weights, stated, place in [
        ("raw", "raw", "network."),
        ("best", "ema_0.5", "averages.copies.0."),
        ("ema_0.9", "ema_0.9", "averages.copies.1."),
    ]:
        folder = exports(path, "format=safetensors", f"weights={weights}", out=weights)
        assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors"}
        assert json.loads((folder / "config.json").read_text())["weights"] == stated
        tensors = load_file(folder / "model.safetensors")
        expected = {key.removeprefix(place): value for key, value in state.items() if key.startswith(place)}
        found = {key.removeprefix("network.").removeprefix("averages.copies.0."): v for key, v in tensors.items()}
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_weights_that_were_not_exported_are_refused_by_name(checkpoint, exports, config):
    path = checkpoint()
    averaged = exports(path, "format=safetensors", "weights=ema_0.9", out="averaged")
    raw = exports(path, "format=safetensors", "weights=raw", out="raw")
    module = loaded(config, averaged)
    with pytest.raises(ValueError, match=r"weights must be ema or ema_0\.9, got 'raw'"):
        module.generate(IDS, "raw")
    with pytest.raises(ValueError, match=r"weights must be ema or ema_0\.9, got 'raw'"):
        exports(averaged, "format=safetensors", "weights=raw", out="again")
    with pytest.raises(ValueError, match=r"weights must be one of raw, ema, ema_0.9, got 'ema_0.5'"):
        exports(averaged, "format=safetensors", "weights=ema_0.5", out="again")
    with pytest.raises(ValueError, match="weights must be one of raw, got 'ema'"):
        exports(raw, "format=safetensors", "weights=ema", out="again")


def test_an_exported_folder_exported_again_is_the_same_folder(checkpoint, exports):
    first = exports(checkpoint(), "format=safetensors", "weights=ema_0.9", out="first")
    second = exports(first, "format=safetensors", out="second")
    for name in ("config.json", "model.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_sampler_chosen_at_the_export_is_that_of_the_folder(checkpoint, exports, config):
    path = checkpoint()
    folder = exports(path, "format=safetensors", "sampler=ddim", "sampler.steps=5")
    expected = loaded(config, path, "sampler=ddim", "sampler.steps=5").generate(IDS, "ema")
    assert torch.equal(loaded(config, folder).generate(IDS, "ema"), expected)
    again = loaded(config, folder, "+sampler.steps=3", "clip=none")
    expected = loaded(config, path, "sampler=ddim", "sampler.steps=3", "clip=none")
    assert torch.equal(again.generate(IDS, "ema"), expected.generate(IDS, "ema"))


def test_sample_py_writes_the_same_pictures_from_the_folder(checkpoint, exports, config, tmp_path):
    path = checkpoint()
    made = []
    for place in (path, exports(path, "format=safetensors")):
        out = tmp_path / f"of_{place.name}"
        sample.run_sample(config("sample", f"ckpt={place}", "num_samples=5", "format=npz", f"out={out}", "trainer=cpu"))
        made.append(np.load(out / "samples.npz")["arr_0"])
    assert np.array_equal(*made)
    assert len(np.unique(made[0])) > 20


@pytest.mark.filterwarnings("ignore:(FID|IS) of")
def test_evaluate_py_gives_the_folder_the_score_and_the_protocol_of_the_checkpoint(
    checkpoint, exports, config, monkeypatch
):
    monkeypatch.setattr("ddpm.metrics.extractors.usual.usual", lambda data: Quarters())
    path = checkpoint()
    folder = exports(path, "format=safetensors", "weights=ema_0.9", out="model_v1.5")
    results = []
    for place, run, weights in [(path, path.parents[1], "ema_0.9"), (folder, folder, "best")]:
        evaluate.run_evaluate(
            config("evaluate", f"ckpt={place}", "num_samples=20", "trainer=cpu", f"weights={weights}")
        )
        (result,) = (run / "evaluations").glob("*_fid_quarters_20_*.json")
        results.append(read_result(result))
    assert results[0].metrics == results[1].metrics
    assert results[0].protocol == results[1].protocol


def test_weights_that_share_memory_are_exported(small, tmp_path):
    module = randomize(build.module(small("ema.decay=[]")).model)
    module.network.middle[1].res = module.network.middle[0].res
    holds = exported.to_exported(module, "raw")
    exported_folder.save_exported_folder(tmp_path, holds)
    again = exported_folder.load_exported_folder(tmp_path)
    assert again.tensors.keys() == holds.tensors.keys()
    assert all(torch.equal(tensor, holds.tensors[key]) for key, tensor in again.tensors.items())
    interop.save_network(module.network, tmp_path / "unet")
    opened = diffusers.UNet2DModel.from_pretrained(tmp_path / "unet")
    x, time = torch.randn(2, 1, 8, 8).double(), torch.tensor([0, 9])
    assert_same(opened.double()(x, time).sample, module.network.double().eval()(x, time))


def test_a_folder_that_asks_for_foreign_code_is_refused(checkpoint, exports, config, tmp_path):
    folder = exports(checkpoint(), "format=safetensors")
    about = json.loads((folder / "config.json").read_text())
    about["config"]["sampler"]["timestep_spacing"] = {"_target_": "os.mkdir", "path": str(tmp_path / "owned")}
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"code that is not a part of .*ddpm.*: 'os.mkdir'"):
        loaded(config, folder)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ddpm_format_version": 2}, "must have ddpm_format_version 1, got 2"),
        ({"weights": None}, "config.json is damaged: it has no 'weights'"),
        ({"weights": "raw"}, "has weights that do not match its configuration"),
        ({"weights": "ema_0.99"}, "must hold ema_0.5 weights, as its configuration says, got 'ema_0.99'"),
    ],
)
def test_a_folder_of_another_make_is_refused(checkpoint, exports, config, change, message):
    folder = exports(checkpoint(), "format=safetensors")
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(about | change))
    with pytest.raises(ValueError, match=message):
        loaded(config, folder)


def test_a_folder_with_other_weights_than_its_config_asks_for_is_refused(checkpoint, exports, config):
    folder = exports(checkpoint(), "format=safetensors")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    key = "averages.copies.0.stem.weight"
    for broken, message in [
        ({name: tensor for name, tensor in tensors.items() if name != key}, f"1 differ, as {key}"),
        (tensors | {"extra": torch.zeros(1)}, "1 differ, as extra"),
        (tensors | {key: torch.zeros(8, 1, 1, 1)}, f"1 differ, as {key}"),
        (tensors | {key: tensors[key] + 1}, "damaged tensors: their sha256"),
    ]:
        save_file(broken, file)
        with pytest.raises(ValueError, match=message):
            loaded(config, folder)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="safetensors is damaged"):
        loaded(config, folder)
    file.unlink()
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        loaded(config, folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json must be JSON"):
        loaded(config, folder)


@pytest.mark.parametrize("format", ["safetensors", "diffusers"])
def test_an_export_that_fails_leaves_nothing(checkpoint, exports, tmp_path, monkeypatch, format):
    path = checkpoint("sampler.steps=null")

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(files_of_weights, "save_file", full)
    with pytest.raises(OSError, match="no space"):
        exports(path, f"format={format}", out="new/out")
    assert list((tmp_path / "new").iterdir()) == []


def test_an_export_over_something_that_is_there_is_refused(checkpoint, exports, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="out must be a folder that does not exist"):
        exports(checkpoint(), "format=safetensors")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]


# diffusers' pipeline


def states_of_the_pipeline(monkeypatch, folder, module):
    """Every x_t of diffusers' own pipeline from our prior and with our noise, and the images that it returns."""
    times = module.sampler.times(module.sampler.process.T)
    monkeypatch.setattr(scheduling_ddpm, "torch", InDouble())
    pipe = diffusers.DDPMPipeline.from_pretrained(folder).to(torch.float64)
    pipe.set_progress_bar_config(disable=True)
    states, step = [], pipe.scheduler.step
    draws = (module.sample_rng.at(s, IDS).normal("step", module.image_shape).double() for s in times[1:])
    prior = module.start(IDS)

    def watched(output, t, sample, **kwargs):
        made = step(output, t, sample, **kwargs)
        states.append(made.prev_sample)
        return made

    monkeypatch.setattr(pipe.scheduler, "step", watched)
    monkeypatch.setattr(pipeline_ddpm, "randn_tensor", lambda shape, **kwargs: prior.clone().reshape(shape))
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *args, **kwargs: next(draws))
    images = pipe(batch_size=len(IDS), num_inference_steps=len(times) - 1, output_type="np").images
    return states, images


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(["sampler.steps=null", "schedule.num_timesteps=1000"], marks=pytest.mark.slow),
        ["sampler.steps=null", "variance=large", "schedule=linear"],
        ["sampler.steps=null", "objective=x0", "schedule=sigmoid"],
        ["sampler.steps=null", "objective=v", "schedule=jsd", "clip=none"],
        pytest.param(
            ["sampler.steps=null", "objective=v", "schedule=warmup", "variance=large"], marks=pytest.mark.slow
        ),
        ["sampler.steps=30", "objective=v", "schedule=quadratic"],
        ["sampler.steps=20", "model.num_heads=2", "data=mnist", "data.size=[16,24]"],
    ],
    ids=" ".join,
)
def test_the_pipeline_of_diffusers_makes_our_samples_from_our_noise(
    checkpoint, exports, config, monkeypatch, capsys, overrides
):
    """At every step, where nothing is saturated; both in float64, but for the 10 digits with which betas are stored."""
    path = checkpoint("schedule.num_timesteps=100", *overrides)
    folder = exports(path, "format=diffusers", "weights=ema_0.9")
    module, ours = in_double(loaded(config, path)), []
    module.on_sampling_step = lambda state: ours.append(state.x_t)
    expected = (module.generate(IDS, "ema_0.9") / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert f"(num_inference_steps={len(ours)})" in capsys.readouterr().out
    states, images = states_of_the_pipeline(monkeypatch, folder, module)
    for theirs, x_t in zip(states, ours, strict=True):
        assert_same(theirs, x_t, 1e-8)
    assert_same(torch.from_numpy(images), expected, 1e-8)
    assert ((expected > 0) & (expected < 1)).double().mean() > 0.2


GUIDED = ["guidance=classifier_free", "guidance.scale=2", "guidance.interval=[0.3,3]"]


@pytest.mark.parametrize(
    "overrides",
    [
        [*GUIDED, "objective=x0", "+model.scale_shift=true"],
        [*GUIDED, "objective=v", "loss=hybrid", "variance=learned_range", "sampler.steps=null"],
        ["guidance=none", "cond.dropout=0"],
    ],
    ids=" ".join,
)
def test_a_pipeline_of_classes_makes_our_samples_from_our_noise_and_is_read_again(
    checkpoint, exports, config, monkeypatch, capsys, overrides
):
    path = checkpoint("schedule.num_timesteps=100", "sampler.steps=20", "cond=class", *overrides)
    folder = exports(path, "format=diffusers", "weights=ema_0.9")
    assert "trust_remote_code=True)(class_labels=" in capsys.readouterr().out
    module, labels = in_double(loaded(config, path)), torch.tensor([3, 0, 9])
    times, prior = module.sampler.times(100), module.start(IDS)
    draws = (module.sample_rng.at(s, IDS).normal("step", module.image_shape).double() for s in times[1:])
    expected = module.generate(IDS, "ema_0.9", {"label": labels})
    assert not torch.equal(expected, module.generate(IDS, "ema_0.9", {"label": labels.flip(0)}))
    again = in_double(loaded(config, folder, f"+sampler.steps={len(times) - 1}"))
    assert_same(again.generate(IDS, again.best_weights, {"label": labels}), expected, 1e-8)

    monkeypatch.setattr(scheduling_ddpm, "torch", InDouble())
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *args, **kwargs: next(draws))
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, trust_remote_code=True).to(torch.float64)
    pipe.set_progress_bar_config(disable=True)
    monkeypatch.setattr(sys.modules[type(pipe).__module__], "randn_tensor", lambda shape, **_: prior.reshape(shape))
    images = pipe(labels.tolist(), num_inference_steps=len(times) - 1, output_type="np").images
    assert_same(torch.from_numpy(images), (expected / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1), 1e-8)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["guidance=classifier_free", "guidance.rescale=0.5"], r"guidance\.rescale must be 0\.0 for diffusers"),
        (["guidance=classifier_free", "guidance.order=[clip,guidance]"], r"guidance\.order must be .* for diffusers"),
    ],
)
def test_guidance_that_the_pipeline_does_not_have_is_refused(checkpoint, exports, overrides, message):
    path = checkpoint("cond=class", "sampler.steps=null", *overrides)
    with pytest.raises(ValueError, match=message):
        exports(path, "format=diffusers")


@pytest.mark.parametrize("name", sorted({*options_of(export.CONF, "schedule")} - {"steps"}))
@pytest.mark.parametrize("num_timesteps", [100, 1000])
def test_every_schedule_is_said_in_words_of_diffusers(config, monkeypatch, name, num_timesteps):
    monkeypatch.setattr(scheduling_ddpm, "torch", InDouble())
    made = config("train", f"schedule={name}", f"schedule.num_timesteps={num_timesteps}")
    alpha_bar = wiring.instantiate(made.schedule, "schedule").alpha_bar
    words = pipeline.schedule_words(alpha_bar)
    theirs = diffusers.DDPMScheduler(num_timesteps, **json.loads(json.dumps(words)))
    assert_same(theirs.alphas_cumprod, alpha_bar[1:])
    named = {"linear": "linear", "constant": "linear", "cosine": "squaredcos_cap_v2"}
    named |= {"quadratic": "scaled_linear", "scaled_linear": "scaled_linear"}
    assert words.get("beta_schedule") == named.get(name)
    if name == "linear":
        scale = 1000 / num_timesteps
        assert (words["beta_start"], words["beta_end"]) == (1e-4 * scale, 0.02 * scale)


def test_a_folder_for_diffusers_is_a_checkpoint_too(checkpoint, exports, config):
    path = checkpoint("sampler.steps=null", "schedule.num_timesteps=100", "objective=v")
    folder = exports(path, "format=diffusers", "weights=raw")
    found, expected = (in_double(loaded(config, place)).generate(IDS, "raw") for place in (folder, path))
    assert_same(found, expected)


REFUSED = [
    (["model.patch_size=2"], [], "model.patch_size must be 1 to save for diffusers"),
    (["model.num_heads=2", "model.attention_levels=[0]"], [], "model.num_heads must be 1 to save for diffusers"),
    (["++model.out_channels=2"], [], "model.out_channels must be 1, the channels of the images"),
    (["sampler=unipc"], [], "sampler must be Ancestral or DDIM to be exported for diffusers .*, got 'UniPC'"),
    ([], ["sampler=unipc"], "sampler must be Ancestral or DDIM to be exported for diffusers .*, got 'UniPC'"),
    ([], ["sampler=ddim", "clip=none", "sampler.eta=0.5"], "sampler.eta must be left out to be exported for diffusers"),
    ([], ["sampler=ddim"], "sampler.clipped_eps must be false with clipping, as in DDIMScheduler, or clip=none"),
    ([], ["sampler=ddim", "clip=none", "sampler.steps=40"], "sampler.steps must be null or a divisor of 100"),
    ([], ["+sampler.steps=40"], "sampler.steps must be null or a divisor of 100, with timestep_spacing=uniform"),
    (
        [],
        ["+sampler.steps=20", "timestep_spacing=quadratic"],
        "timestep_spacing must be leading or linspace or trailing or uniform or ending_at_1 to be exported",
    ),
    ([], ["+sampler.steps=20", "variance=large"], "sampler.steps must be null .* with variance=large, or use small"),
]


@pytest.mark.parametrize(("trained", "exported", "message"), REFUSED, ids=lambda value: "".join(value)[:40])
def test_what_the_pipeline_cannot_follow_is_refused_by_name(checkpoint, exports, tmp_path, trained, exported, message):
    path = checkpoint("schedule.num_timesteps=100", "sampler.steps=20", *trained)
    with pytest.raises(ValueError, match=message):
        exports(path, "format=diffusers", *exported)
    assert not (tmp_path / "out").exists()


def test_parts_that_are_not_in_the_table_are_refused_by_name():
    for group in pipeline.WORDS:
        with pytest.raises(ValueError, match=rf"^{group} must be .* got 'Other'$"):
            pipeline.part_words({group: {"_target_": f"ddpm.{group}.Other"}})
    with pytest.raises(ValueError, match=r"^clip\.bound must be left out .* got 3$"):
        pipeline.part_words({"clip": {"_target_": "ddpm.diffusion.denoiser.StaticThresholding", "bound": 3}})
    with pytest.raises(ValueError, match=r"^model=Linear cannot be exported for diffusers"):
        pipeline.save_pipeline(None, nn.Linear(1, 1), {}, (1, 8, 8))


# The command


@pytest.mark.slow
def test_the_command_writes_beside_the_run_and_needs_no_diffusers(checkpoint, tmp_path):
    path = checkpoint("sampler.steps=null")
    hidden = "import runpy, sys; sys.modules['diffusers'] = None"
    program = f"{hidden}; runpy.run_module('ddpm.commands.export', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", program, f"ckpt={path}", "format=diffusers"],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "run" / "diffusers_last_ema"
    assert done.stdout.splitlines() == [
        f"ema 0.5 weights in {folder}",
        f"DDPMPipeline.from_pretrained({str(folder)!r})(num_inference_steps=1000)",
    ]
    assert {each.name for each in folder.iterdir()} == {"model_index.json", "unet", "scheduler"}


def test_a_format_that_there_is_not_is_refused(checkpoint, exports):
    with pytest.raises(ValueError, match="format must be one of safetensors, diffusers, got 'onnx'"):
        exports(checkpoint(), "format=onnx")
