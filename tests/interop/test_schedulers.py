"""What a scheduler_config.json of diffusers says is what our sampler does, step by step, or is named in an error."""

import json
from functools import partial

import diffusers
import pytest
import torch
from diffusers import DDPMScheduler, PNDMScheduler, UNet2DModel
from diffusers.schedulers import scheduling_ddim, scheduling_ddpm
from diffusers_folders import IDS, STEPS, configured, folder_of, opened
from networks import awake
from precision import InDouble, assert_rounded, assert_same

from ddpm.commands import export
from ddpm.config import build


@torch.no_grad()
def states_of_diffusers(monkeypatch, folder, module, label=None, steps=STEPS):
    """Every x_t by their network and scheduler in float64, from our prior and with our noise."""
    monkeypatch.setattr(scheduling_ddpm, "torch", InDouble())
    monkeypatch.setattr(scheduling_ddim, "torch", InDouble())
    unet = UNet2DModel.from_pretrained(folder / "unet").double()
    unet.time_proj.register_forward_hook(lambda module, args, waves: waves.double())
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, dtype=torch.float64))
    kind = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())["_class_name"]
    scheduler = getattr(diffusers, kind).from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(steps)
    ends = [*(t + 1 for t in scheduler.timesteps.tolist()[1:]), 0]
    draws = (module.sample_rng.at(s, IDS).normal("step", (1, 8, 8)).double() for s in ends)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *args, **kwargs: next(draws))
    x, states = module.start(IDS).double(), []
    for t in scheduler.timesteps:
        output = unet(x, t, **({} if label is None else {"class_labels": label})).sample
        x = scheduler.step(output, t, x).prev_sample
        states.append(x)
    return states


def states_of_ours(module):
    prior, states = module.start(IDS).double(), []
    module.start = lambda ids, images=None: prior
    module.on_sampling_step = lambda state: states.append(state.x_t)
    module.generate(IDS, "raw")
    return states


VARIANCES = ["fixed_small", "fixed_small_log", "fixed_large", "learned_range"]
CLIPS = [
    {"clip_sample": True},
    {"clip_sample": True, "clip_sample_range": 0.6},
    {"clip_sample": False},
    {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5},
]
NOISES = [
    {"timestep_spacing": "linspace"},
    {"beta_schedule": "sigmoid", "beta_end": 0.2, "prediction_type": "sample", "timestep_spacing": "trailing"},
    {"beta_schedule": "scaled_linear", "beta_end": 0.3, "rescale_betas_zero_snr": True, "prediction_type": "sample"},
    {"trained_betas": [0.01 * (k % 5 + 1) for k in range(STEPS)], "prediction_type": "v_prediction"},
]


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("clip", CLIPS, ids=lambda each: " ".join(each))
@pytest.mark.parametrize("noise", NOISES, ids=lambda each: "_".join(each))
def test_what_a_scheduler_says_is_done_at_every_step(tmp_path, monkeypatch, variance, clip, noise):
    folder = folder_of(tmp_path, channels=1 + (variance == "learned_range"), variance_type=variance, **clip, **noise)
    module = opened(folder)
    ours, theirs = states_of_ours(module), states_of_diffusers(monkeypatch, folder, module)
    assert len(ours) == len(theirs) == STEPS
    for x, expected in zip(ours, theirs, strict=True):
        assert_same(x, expected, 1e-9)


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("steps", [1, 5, 6])
@pytest.mark.parametrize(
    "spacing",
    [{"timestep_spacing": "leading", "steps_offset": k} for k in (0, 1)]
    + [{"timestep_spacing": name} for name in ("linspace", "trailing")],
    ids=lambda each: "_".join(map(str, each.values())),
)
def test_fewer_steps_are_at_the_times_of_diffusers(tmp_path, monkeypatch, variance, steps, spacing):
    """But for noise that it adds in a step to 0 from above 1, unless the variance is small."""
    channels = 1 + (variance == "learned_range")
    folder = folder_of(tmp_path, channels=channels, variance_type=variance, beta_end=0.3, **spacing)
    module = opened(folder, f"+sampler.steps={steps}")
    ours = states_of_ours(module)
    theirs = states_of_diffusers(monkeypatch, folder, module, steps=steps)
    assert len(ours) == len(theirs) == steps
    *_, last, _ = module.sampler.times(STEPS)
    compared = steps - (last > 1)
    for x, expected in zip(ours[:compared], theirs[:compared], strict=True):
        assert_same(x, expected, 1e-9)


@pytest.mark.parametrize("scheduler", ["DDIM", "PNDM", "EulerDiscrete", "DPMSolverMultistep", "UniPCMultistep"])
@pytest.mark.parametrize("spacing", [None, "leading", "linspace", "trailing"])
def test_each_class_of_scheduler_has_its_own_times(tmp_path, scheduler, spacing):
    """Also where the file leaves the spacing out. PNDM visits a time several times, and its set_alpha_to_one is false
    unless it is stated, so it ends with the noise of the first time."""
    kind = getattr(diffusers, f"{scheduler}Scheduler")
    theirs = kind(STEPS, **({"timestep_spacing": spacing} if spacing else {}))
    folder = folder_of(tmp_path, kind, **({"timestep_spacing": spacing} if spacing else {}))
    file = folder / "scheduler" / "scheduler_config.json"
    words = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in words.items() if spacing or k != "timestep_spacing"}))
    times = opened(folder, "+sampler.steps=5").sampler.times(STEPS)
    theirs.set_timesteps(5)
    end = 1 if scheduler == "PNDM" else 0
    visited = theirs._timesteps[::-1] if scheduler == "PNDM" else theirs.timesteps
    if scheduler == "EulerDiscrete":  # it interpolates between times
        assert max(abs(t - 1 - float(other)) for t, other in zip(times[:-1], visited, strict=True)) <= 0.5
    else:
        assert times == list(dict.fromkeys([*(int(t) + 1 for t in visited), end]))
    assert opened(folder).sampler.times(STEPS) == list(range(STEPS, end - 1, -1))


@pytest.mark.parametrize("steps", ["null", 6])
@pytest.mark.parametrize(
    "spacing",
    ["leading", "linspace", "trailing", "leading timestep_spacing.offset=1"],
)
def test_the_spacing_is_exported_and_read_again(tmp_path, small, spacing, steps):
    words = [
        "ema.decay=[]",
        f"schedule.num_timesteps={STEPS}",
        f"sampler.steps={steps}",
        *f"timestep_spacing={spacing}".split(),
    ]
    module = awake(build.module(small(*words)).model).float()
    path, folder = tmp_path / "last.ckpt", tmp_path / "out"
    torch.save({"config": module.config, "state_dict": module.state_dict()}, path)
    export.run_export(configured("export", f"ckpt={path}", f"out={folder}", "format=diffusers", "weights=raw"))
    first, again = opened(path, "+sampler.steps=4"), opened(folder, "+sampler.steps=4")
    assert first.sampler.describe() == again.sampler.describe()
    theirs = DDPMScheduler.from_pretrained(folder / "scheduler")
    theirs.set_timesteps(4)
    assert first.sampler.times(STEPS) == [*(t + 1 for t in theirs.timesteps.tolist()), 0]


SAMPLERS = ["small", "large", "learned_range", "small sampler=ddim"]


@pytest.mark.parametrize("variance", SAMPLERS)
@pytest.mark.parametrize("clip", ["none", "static", "dynamic clip.percentile=0.9 clip.largest=1.5"])
@pytest.mark.parametrize("objective", ["eps", "v"])
def test_an_exported_folder_read_again_draws_the_same_samples(tmp_path, monkeypatch, small, variance, clip, objective):
    """Theirs too: the folder says to diffusers what it says to us."""
    words = [
        "ema.decay=[]",
        f"schedule.num_timesteps={STEPS}",
        "schedule=sigmoid_beta",
        "schedule.rescale=false",
    ]
    words += [*f"variance={variance} clip={clip} objective={objective}".split(), "sampler.steps=null"]
    words += ["loss=hybrid"] if variance == "learned_range" else []
    words += ["sampler.clipped_eps=false"] if "ddim" in variance and clip != "none" else []
    module = awake(build.module(small(*words)).model).float()
    path = tmp_path / "last.ckpt"
    torch.save({"config": module.config, "state_dict": module.state_dict()}, path)
    folder = tmp_path / "out"
    export.run_export(configured("export", f"ckpt={path}", f"out={folder}", "format=diffusers", "weights=raw"))
    first, again = opened(path), opened(folder)
    expected = states_of_ours(first)
    theirs = states_of_diffusers(monkeypatch, folder, first)
    for x, found, other in zip(expected, states_of_ours(again), theirs, strict=True):
        assert_same(found, x)
        assert_same(other, x, 1e-8)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("variance_type", "learned"),
        ("variance_type", "fixed_large_log"),
        ("variance_type", "learned_range"),  # the network has no outputs for it
        ("variance_type", 3),
        ("timestep_spacing", "karras"),
        ("clip_sample", "yes"),
        ("clip_sample_range", "1"),
        ("thresholding", 1),
        ("trained_betas", [0.1, "0.2"]),
        ("trained_betas", [0.1, 0.2]),
        ("beta_schedule", "laplace"),
        ("_class_name", "FlowMatchEulerDiscreteScheduler"),
    ],
)
def test_what_cannot_be_done_is_named(tmp_path, field, value):
    folder = folder_of(tmp_path)
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(ValueError, match=field.replace("trained_", "")) as refusal:
        opened(folder)
    assert repr(value) in str(refusal.value) or "2 numbers" in str(refusal.value)


def test_the_network_of_a_pipeline_is_used_with_its_scheduler(tmp_path, capsys):
    folder = folder_of(tmp_path, diffusers.DDIMScheduler, beta_end=0.3)
    (folder / "model_index.json").write_text("{}")
    of_network, of_pipeline = opened(folder / "unet"), opened(folder)
    assert of_network.config["schedule"] == of_pipeline.config["schedule"]
    assert of_network.config["sampler"] == of_pipeline.config["sampler"]
    assert "scheduler" not in capsys.readouterr().out
    (folder / "model_index.json").unlink()
    opened(folder / "unet")
    assert "unet has no scheduler: used as with DDPMScheduler()" in capsys.readouterr().out


def test_weights_of_a_variant_are_named(tmp_path):
    folder = folder_of(tmp_path)
    UNet2DModel.from_pretrained(folder / "unet").save_pretrained(tmp_path / "half", variant="fp16")
    with pytest.raises(ValueError, match=r"has no diffusion_pytorch_model.safetensors, but .*fp16.safetensors: rename"):
        opened(tmp_path / "half")


def test_eps_before_a_clipping_that_there_is_not_is_refused_where_it_is_typed(tmp_path, small):
    folder = folder_of(tmp_path, diffusers.DDIMScheduler, clip_sample=False)
    assert not opened(folder).sampler.clipped_eps
    assert not opened(folder, "clip=static").sampler.clipped_eps
    words = ("sampler=ddim", "sampler.clipped_eps=false", "sampler.steps=4")
    assert not opened(folder, *words, "clip=static").sampler.clipped_eps
    message = "sampler.clipped_eps=false has no effect with clip=none"
    with pytest.raises(ValueError, match=message):
        opened(folder, *words)
    with pytest.raises(ValueError, match=message):
        build.module(small(*words, "clip=none"))
    build.module(small(*words))


def test_a_scheduler_that_never_clips_is_read_so(tmp_path):
    model = opened(folder_of(tmp_path, PNDMScheduler))
    assert model.config["clip"]["_target_"].endswith("no_wrapper")


@pytest.mark.parametrize("kind", [None, "timestep"])
def test_classes_of_diffusers_are_conditions_here(tmp_path, monkeypatch, kind):
    folder = folder_of(tmp_path, network={"num_class_embeds": 3, "class_embed_type": kind}, beta_end=0.3)
    module = opened(folder, "class=2")
    theirs = states_of_diffusers(monkeypatch, folder, module, torch.tensor([2, 2]))
    prior, ours = module.start(IDS).double(), []
    module.start = lambda ids, images=None: prior
    module.on_sampling_step = lambda state: ours.append(state.x_t)
    module.generate(IDS, "raw", {"label": torch.tensor([2, 2])})
    for x, expected in zip(ours, theirs, strict=True):
        assert_rounded(x, expected, 64) if kind else assert_same(x, expected)  # their layers are a float32 table here


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_embed_type": "identity"}, "class_embed_type = 'identity'"),
        ({"class_embed_type": "timestep"}, "class_embed_type = 'timestep': add num_class_embeds"),
    ],
)
def test_conditions_other_than_a_number_of_a_class_are_named(tmp_path, changes, message):
    folder = folder_of(tmp_path)
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        opened(folder)
