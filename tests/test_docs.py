"""The examples of docs/extending.md run; commands, files and links named in README.md and docs/ exist."""

import re
import shlex
import types
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from precision import assert_same

from ddpm.base.rng import Rng
from ddpm.commands.former_options import FORMER_OPTIONS
from ddpm.commands.short_forms import expand_short_forms
from ddpm.diffusion.conditions.base import drop_conditions
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.objective import X0
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.samplers.timestep_spacing import uniform
from ddpm.diffusion.schedules.base import Steps
from ddpm.networks.unet import UNet

ROOT = Path(__file__).resolve().parents[1]
TEXTS = {path: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
COMMAND = re.compile(
    r"(?<!\$ )(?:python|ddpm|torchrun .*?) (train|sample|evaluate|export)(?:\.py)? ([^`#;|\n]*=[^`#;|\n]*)"
)
EXAMPLES = "root|mine|mynet|brightness|posterize|tinyconv|NAME"
"""Options and files that docs/extending.md adds."""

PAGE = TEXTS[ROOT / "docs" / "extending.md"]
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
    settings = {"process": process, "timestep_spacing": uniform, "steps": numbers(CONFIGS[1])["steps"]}
    ids, rng = torch.arange(3), Rng(0, "test")
    x_T = process.prior((1, 4, 4), rng.at(100, ids)).double()
    samplers = run(PROGRAMS[1]).Euler(**settings), DDIM(**settings, eta=0.0)
    for euler, ddim in zip(*(sampler.trajectory(denoiser, x_T, rng, ids) for sampler in samplers), strict=True):
        assert_same(euler.x_t, ddim.x_t)


def test_your_own_condition_is_told_and_hidden_like_any_other():
    brightness = run(PROGRAMS[2]).Brightness(**numbers(CONFIGS[2]))
    images = torch.tensor([-1.0, -0.5]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    told = brightness.of({"image": images})
    assert told["label"].tolist() == [0, 1]
    assert brightness.unconditional(told)["label"].tolist() == [-1, -1]
    draws = Rng(0, "train").at(0, torch.arange(400))
    hidden = drop_conditions(brightness, brightness.default_conditions(torch.arange(400)), draws)["label"] == -1
    assert 10 < int(hidden.sum()) < 80  # 40 are expected, with a deviation of 6
    network = UNet(1, 8, [1], 1, num_groups=4, **brightness.network_settings)
    assert network(images, torch.zeros(2), **told).shape == images.shape


def test_your_own_corruption_is_nothing_at_0_and_leaves_two_levels_at_the_end():
    process = run(PROGRAMS[3]).Posterize(schedule=Steps(8), **numbers(CONFIGS[3]))
    x0 = torch.arange(256).view(1, 1, 16, 16).repeat(3, 1, 1, 1) / 127.5 - 1
    z = process.draw(x0, Rng(0, "train").at(0, torch.arange(3)))
    x_t = process.apply(x0, z, torch.tensor([0, 4, 8]))
    assert torch.equal(x_t[0], x0[0])
    assert [len(each.unique()) for each in x_t] == [256, 17, 2]  # the root of 255 is 16 intervals, nearly
    assert torch.equal(process.apply(x0, z, 4)[1], x_t[1])


def overrides(name: str, words: list[str]) -> list[str]:
    """The words of a documented command as Hydra's overrides, with the first of several options and for "..." any."""
    chosen = [re.sub(r"=\.\.\.$", "=mnist", word) for word in words if re.match(r"[+\w.@/]+=", word)]
    chosen = [word if "[" in word else word.partition(",")[0] for word in chosen]
    chosen = [word for word in chosen if not re.search(rf"={EXAMPLES}\b", word)]
    return expand_short_forms(chosen, ROOT / "conf", name)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_documented_commands_name_existing_options_and_fields(path):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for name, words in COMMAND.findall(re.sub(r"\\\n\s*", "", TEXTS[path])):
            compose(name, overrides(name, shlex.split(words)))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_documented_files_and_links_exist(path):
    links = [path.parent / link for link in re.findall(r"(?:\]\(|src=\")([^)\"#:]+)", TEXTS[path])]
    files = re.findall(r"`((?:\w+/)+(?:[\w-]+\.(?:py|yaml|md))?)`", TEXTS[path])
    files += re.findall(r"[ `]((?:src|tests|conf|benchmarks|tools)/[\w/-]+\.\w+)", TEXTS[path])
    files = [file for file in files if not re.search(rf"\b({EXAMPLES})\.", file)]
    places = [ROOT, ROOT / "src" / "ddpm", ROOT / "src" / "ddpm" / "diffusion"]
    ours = [file for file in files if not file.startswith(("runs/", "RUN/", "images/", "masks/"))]
    assert not [link for link in links if not link.exists()]
    assert not [file for file in ours if not any((place / file).exists() for place in places)]


def test_no_comment_or_message_advises_an_option_of_an_earlier_version():
    files = [*(ROOT / "conf").rglob("*.yaml"), *(ROOT / "src").rglob("*.py"), ROOT / "Makefile"]
    tables = {"former_options.py", "upgrade.py"}
    named = {
        (path.name, option)
        for path in files
        if path.name not in tables
        for option in FORMER_OPTIONS
        if re.search(rf"(?<![\w@]){re.escape(option)}(?!\w)", path.read_text())
    }
    assert named == set()
