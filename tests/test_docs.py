"""The examples of docs/extending.md, run as they stand there."""

import re
import types
from pathlib import Path

import torch
from omegaconf import OmegaConf

from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.grid import uniform
from ddpm.diffusion.objective import X0
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.rng import Rng

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "extending.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CONFIGS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def run(program: str) -> types.ModuleType:
    module = types.ModuleType("example")
    exec(compile(program, "extending.md", "exec"), module.__dict__)
    return module


def numbers(config: str) -> dict:
    return {k: v for k, v in OmegaConf.to_container(OmegaConf.create(config), resolve=False).items() if k[0] != "_"}


def test_your_own_schedule_has_the_curve_of_its_docstring():
    schedule = run(PROGRAMS[0]).root(**numbers(CONFIGS[0]))
    assert schedule.T == 1000
    expected = (1 - (0.25 + 1e-4) ** 0.5) / (1 - 1e-4**0.5)
    assert abs(schedule.alpha_bar[250].item() - expected) < 1e-12


def test_your_own_sampler_is_ddim_in_other_letters():
    schedule = run(PROGRAMS[0]).root(num_timesteps=100, offset=1e-4)
    process = GaussianDiffusion(schedule)
    denoiser = NetworkDenoiser(lambda x, time: 0.3 * x.tanh(), X0(schedule))
    settings = {"process": process, "grid": uniform, "steps": numbers(CONFIGS[1])["steps"]}
    ids, rng = torch.arange(3), Rng(0, "test")
    euler = run(PROGRAMS[1]).Euler(**settings).sample(denoiser, (1, 4, 4), rng, ids)
    ddim = DDIM(**settings, eta=0.0).sample(denoiser, (1, 4, 4), rng, ids)
    torch.testing.assert_close(euler, ddim, rtol=1e-4, atol=1e-5)
