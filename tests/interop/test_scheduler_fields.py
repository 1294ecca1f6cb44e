"""Every field of a scheduler of diffusers is followed: a run of both programs in float64; or is named in an error."""

import inspect
import json

import diffusers
import numpy as np
import pytest
import torch
from diffusers import schedulers
from diffusers_folders import IDS, configured, folder_of, opened
from networks import awake
from omegaconf import OmegaConf
from precision import InDouble, assert_same

from ddpm.base.rng import Rng
from ddpm.commands import export
from ddpm.config import build
from ddpm.config.wiring import complete, instantiate
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.interop.configuration import all_groups, objective_of, sampling_parts, schedule
from ddpm.interop.scheduler import FIELDS, NOISE, scheduler_from

RNG = Rng(0, "sample")

NO_EFFECT = {
    *("sigma_min", "sigma_max", "shift_terminal"),  # with use_karras_sigmas and its like, or use_flow_sigmas
    *("flow_shift", "use_dynamic_shifting", "time_shift_type"),  # with use_flow_sigmas
}
WITHOUT_EQUAL = {
    *("DDIMInverse", "LMSDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete", "DPMSolverSDE"),
    *("DPMSolverSinglestep", "DEISMultistep"),
}
IN_SIGMA = {"EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete"}  # their sample is x_t / alpha_t


class NumpyInDouble:
    """numpy, but for its float32."""

    def __getattr__(self, name):
        return np.float64 if name == "float32" else getattr(np, name)


def module_of(name):
    words = {"DPMSolverMultistep": "dpmsolver_multistep", "UniPCMultistep": "unipc_multistep"}
    words |= {"EulerDiscrete": "euler_discrete", "EulerAncestralDiscrete": "euler_ancestral_discrete"}
    words |= {"HeunDiscrete": "heun_discrete"}
    return getattr(schedulers, f"scheduling_{words.get(name, name.lower())}")


CHANNELS, STEPS = 3, 12  # their learned_range takes the first 3 channels, whatever their number


class Reading:
    """What is made of a scheduler_config.json, without a network: steps of a smooth function of x and time."""

    def __init__(self, words, steps=6):
        self.scheduler = scheduler_from(words)
        self.outputs = CHANNELS * (1 + (self.scheduler.variance_type == "learned_range"))
        parts = sampling_parts(self.scheduler, {"in_channels": CHANNELS, "out_channels": self.outputs})
        groups = all_groups({"in_channels": CHANNELS}, [4, 4], schedule(self.scheduler), objective_of(self.scheduler))
        config = OmegaConf.create(groups | parts)
        config.sampler.steps = steps
        table = instantiate(config.schedule, "schedule")
        process = GaussianDiffusion(table)
        self.sampler = complete(instantiate(config.sampler, "sampler"), "sampler", process=process)
        objective = complete(instantiate(config.objective, "objective"), "objective", schedule=table)
        denoiser = NetworkDenoiser(self.network, objective)
        self.denoiser = instantiate(config.clip, "clip")(denoiser)
        self.x = torch.randn(2, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def network(self, x, time):
        wave = (1.3 * x + 0.1 * torch.as_tensor(time).double().view(-1, 1, 1, 1)).sin()
        return torch.cat([wave] * (self.outputs // CHANNELS), 1)

    def noise(self, s):
        return RNG.at(s, IDS).normal("step", (CHANNELS, 4, 4)).double()

    def states(self):
        return {state.t: state.x_t for state in self.sampler.trajectory(self.denoiser, self.x, RNG, IDS)}


def states_of_theirs(monkeypatch, name, scheduler, ours, steps=6):
    """Their samples, by the time at which they are, from x_t at their first time and with our noise."""
    scheduler.set_timesteps(steps)
    times = [int(t) + 1 for t in scheduler.timesteps.tolist()]
    last, table = ours.sampler.times(STEPS)[-1], ours.sampler.process.schedule
    ends = iter(reached := [*times[1:], last])
    if hasattr(module_of(name), "randn_tensor"):
        monkeypatch.setattr(module_of(name), "randn_tensor", lambda *args, **kwargs: ours.noise(next(ends)))
    sample, states = ours.x / (table.alpha(times[0]) if name in IN_SIGMA else 1), {}
    for t, end in zip(scheduler.timesteps, reached, strict=True):
        output = ours.network(scheduler.scale_model_input(sample, t), t)
        sample = scheduler.step(output, t, sample).prev_sample
        states[end] = sample * (table.alpha(end) if name in IN_SIGMA else 1)
    return states


def cases():
    objectives = [{"prediction_type": each} for each in ("epsilon", "sample", "v_prediction")]
    spacings = [{"timestep_spacing": "leading", "steps_offset": 1}, {"timestep_spacing": "trailing"}]
    ends, linspace = [{"set_alpha_to_one": each} for each in (True, False)], {"timestep_spacing": "linspace"}
    clips = [{"clip_sample": True, "clip_sample_range": 0.7}, {"clip_sample": False}]
    clips += [{"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5, "clip_sample": False}]
    rescaled = [{"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}]
    noises = [{"beta_schedule": "scaled_linear"}, {"beta_schedule": "squaredcos_cap_v2"}]
    noises += [{"trained_betas": [0.01 * (k % 5 + 1) for k in range(STEPS)]}]
    final = [{"final_sigmas_type": each} for each in ("zero", "sigma_min")]
    thresholds = [each for each in clips if "thresholding" in each]
    thresholds = [{k: v for k, v in each.items() if k != "clip_sample"} for each in thresholds]
    plain = {"timestep_spacing": "trailing"}
    for name, options in {
        "DDIM": [a | b | {"clip_sample": False} for a in [*spacings, {"timestep_spacing": "leading"}] for b in ends]
        + [a | b | plain for a in clips for b in objectives]
        + [each | plain for each in (*rescaled, *noises)],
        "PNDM": [a | b | {"skip_prk_steps": True} for a in [*spacings, {}] for b in [{}, *ends]],
        "EulerDiscrete": [a | b for a in spacings for b in (*objectives[::2], *final, *noises)]
        + [each | plain for each in rescaled],
        "EulerAncestralDiscrete": [a | b for a in spacings for b in (*objectives[::2], *noises)],
        "HeunDiscrete": [a | b for a in spacings for b in (*objectives, *clips[:2], *noises)],
        "UniPCMultistep": [
            a | {"solver_order": k, "lower_order_final": lower} | b
            for a in (*spacings, linspace)
            for k in (1, 2, 3)
            for lower, b in ((True, final[0]), (True, final[1]), (False, final[1]))
        ]
        + [each | plain for each in (*objectives, *thresholds, *noises, *rescaled)],
        "DPMSolverMultistep": [
            a | {"solver_order": k, "lower_order_final": lower} | b
            for a in (*spacings, linspace)
            for k in (1, 2, 3)
            for lower, b in ((True, final[0]), (False, final[0]), (False, final[1]))
        ]
        + [a | {"algorithm_type": "sde-dpmsolver++", "solver_order": k} for a in spacings for k in (1, 2)]
        + [{"euler_at_final": True}, {"variance_type": "learned_range"}]
        + [each | plain for each in (*objectives, *thresholds, *noises, *rescaled)],
    }.items():
        for option in options:
            words = ", ".join(f"{key}={value}" for key, value in option.items() if key != "trained_betas")
            yield pytest.param(name, option, id=f"{name}({words})")


@pytest.mark.parametrize(("name", "option"), [*cases()])
def test_a_run_is_that_of_diffusers(monkeypatch, name, option):
    monkeypatch.setattr(module_of(name), "torch", InDouble())
    monkeypatch.setattr(module_of(name), "np", NumpyInDouble())
    noise = {} if option.keys() & {"trained_betas", "beta_schedule"} else {"beta_start": 0.01, "beta_end": 0.3}
    theirs = getattr(diffusers, f"{name}Scheduler")(STEPS, **option, **noise)
    ours = Reading(json.loads(theirs.to_json_string()))
    found, expected = ours.states(), states_of_theirs(monkeypatch, name, theirs, ours)
    assert found.keys() == expected.keys()
    for t, x in found.items():
        if name != "PNDM" or t > 2:  # their weights are for equal steps, also in the last one
            assert_same(x, expected[t], 1e-9)


def edited(folder, **changes):
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


UNEQUAL = [
    *[("DPMSolverMultistep", {key: True}) for key in ("use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas")],
    *[("DPMSolverMultistep", {"algorithm_type": each}) for each in ("dpmsolver", "sde-dpmsolver")],
    ("DPMSolverMultistep", {"solver_type": "heun"}),
    ("DPMSolverMultistep", {"solver_order": 4}),
    ("DPMSolverMultistep", {"lambda_min_clipped": -5.1}),
    ("DPMSolverMultistep", {"final_sigmas_type": "sigma_min"}),  # with lower_order_final
    ("DPMSolverMultistep", {"final_sigmas_type": "other"}),
    ("UniPCMultistep", {"use_beta_sigmas": True}),
    ("UniPCMultistep", {"predict_x0": False}),
    ("UniPCMultistep", {"solver_type": "bh1"}),
    ("UniPCMultistep", {"disable_corrector": [0]}),
    ("UniPCMultistep", {"solver_p": {"a": 1}}),
    ("EulerDiscrete", {"use_karras_sigmas": True}),
    ("EulerDiscrete", {"timestep_type": "continuous"}),
    ("EulerDiscrete", {"interpolation_type": "log_linear"}),
    ("HeunDiscrete", {"use_karras_sigmas": True}),
]


@pytest.mark.parametrize(("name", "changes"), UNEQUAL, ids=str)
def test_what_no_sampler_here_does_is_named(name, changes):
    ((field, value),) = changes.items()
    with pytest.raises(ValueError, match="choose sampler=NAME") as refusal:
        Reading({"_class_name": f"{name}Scheduler", **changes})
    assert f"{name}Scheduler with {field} = {value!r}" in str(refusal.value)


@pytest.mark.parametrize("name", sorted(WITHOUT_EQUAL))
def test_a_class_without_an_equal_is_named(name):
    with pytest.raises(ValueError, match=f"{name}Scheduler has no equal here: choose sampler=NAME"):
        Reading({"_class_name": f"{name}Scheduler"})


def test_another_sampler_is_chosen_in_its_place(tmp_path):
    folder = folder_of(tmp_path, diffusers.DPMSolverMultistepScheduler, use_karras_sigmas=True)
    with pytest.raises(ValueError, match="use_karras_sigmas = True has no equal here: choose sampler=NAME"):
        opened(folder)
    assert opened(folder, "sampler=dpm_solver", "sampler.steps=5", "timestep_spacing=rho").sampler.steps == 5


def test_sigmas_of_flow_matching_are_another_noise():
    with pytest.raises(ValueError, match="use_flow_sigmas = True: its noise"):
        Reading({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True})


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_the_class_is_known_with_its_default(name):
    signature = inspect.signature(getattr(diffusers, f"{name}Scheduler").__init__).parameters
    theirs = {key: value.default for key, value in signature.items() if key not in {"self", "kwargs"}}
    known = NOISE | FIELDS[name]
    unknown = theirs.keys() - known.keys() - NO_EFFECT
    assert name in WITHOUT_EQUAL or not unknown
    assert {key: theirs.get(key, "absent") for key in known if key in theirs} == {
        key: value for key, value in known.items() if key in theirs
    }


@pytest.mark.parametrize(
    "changes",
    [{"clip_sample": True}, {"thresholding": True}, {"rescale_betas_zero_snr": True}, {"variance_type": "learned"}],
    ids=str,
)
def test_a_field_of_another_class_is_passed_over_as_in_diffusers(changes):
    words = {"_class_name": "PNDMScheduler", "skip_prk_steps": True}
    assert scheduler_from(words | changes) == scheduler_from(words)


@pytest.mark.parametrize("to_one", [True, False])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize(
    "clip", [{"clip_sample": False}, {"clip_sample": True}, {"clip_sample": False, "thresholding": True}], ids=str
)
def test_a_folder_with_the_sampler_of_ddim_is_written_as_it_was_read(tmp_path, spacing, to_one, clip):
    option = {"timestep_spacing": spacing, "set_alpha_to_one": to_one, "beta_end": 0.3, **clip}
    folder = folder_of(tmp_path / "theirs", diffusers.DDIMScheduler, **option)
    out = tmp_path / "out"
    words = (f"ckpt={folder}", f"out={out}", "format=diffusers", "weights=raw")
    export.run_export(configured("export", *words))
    again = diffusers.DDIMScheduler.from_pretrained(out / "scheduler").config
    before = diffusers.DDIMScheduler.from_pretrained(folder / "scheduler").config
    assert {key: again[key] for key in FIELDS["DDIM"] | NOISE} == {key: before[key] for key in FIELDS["DDIM"] | NOISE}


def test_times_that_end_at_1_are_not_those_of_the_exported_ancestral_sampler(tmp_path, small):
    module = awake(
        build.module(small("ema.decay=[]", f"schedule.num_timesteps={STEPS}", "timestep_spacing=ending_at_1")).model
    )
    path = tmp_path / "last.ckpt"
    torch.save({"config": module.config, "state_dict": module.state_dict()}, path)
    with pytest.raises(ValueError, match="timestep_spacing must be one that ends at 0 for sampler=ancestral"):
        export.run_export(
            configured("export", f"ckpt={path}", f"out={tmp_path / 'out'}", "format=diffusers", "weights=raw")
        )
