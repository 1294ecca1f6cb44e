"""Code of one's own in what is loaded: trusted because somebody says so, and by nothing that is stored."""

import os
import sys

import pytest
from processes import Command, ended
from small_runs import SMALL

from ddpm.checkpoint.stored_config import is_ours
from ddpm.checkpoint.trust import take_trust, trusted_packages, user_file

NETWORK = '''
from os import system

from ddpm.networks import UNet


class Tiny(UNet):
    """A network of one's own."""


def unet(**settings):
    return Tiny(**settings)
'''
SETTINGS = """
_target_: mynet.nets.Tiny
in_channels: ${data.channels}
base_channels: 8
channel_mults: [1, 2]
num_res_blocks: 1
attention_levels: []
dropout: 0.0
num_heads: 1
num_groups: 4
patch_size: 1
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A package of one's own with a network and its YAML, on the path of imports but not installed."""
    (tmp_path / "mine" / "mynet").mkdir(parents=True)
    (tmp_path / "mine" / "conf" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "mynet" / "__init__.py").write_text("")
    (tmp_path / "mine" / "mynet" / "nets.py").write_text(NETWORK)
    (tmp_path / "mine" / "conf" / "model" / "tinyconv.yaml").write_text(SETTINGS)
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DDPM_TRUST", raising=False)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "mynet"]:
        del sys.modules[name]


def test_a_package_is_trusted_by_saying_so_and_only_what_is_defined_in_it_counts(mine, monkeypatch):
    assert not is_ours("mynet.nets.Tiny")
    monkeypatch.setenv("DDPM_TRUST", "mynet")
    assert is_ours("mynet.nets.Tiny")
    assert is_ours("mynet.nets.unet")
    assert not is_ours("mynet.nets.system")
    assert not is_ours("mynet.nets.UNet")
    assert not is_ours("mynetworks.nets.Tiny")
    monkeypatch.delenv("DDPM_TRUST")
    user_file().parent.mkdir(parents=True)
    user_file().write_text("trust: [mynet]\n")
    assert is_ours("mynet.nets.Tiny")


def test_an_installed_package_announces_modules_by_an_entry_point(mine):
    about = mine / "mine" / "mynet-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: mynet\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[ddpm.parts]\nmynet = mynet.nets\n")
    assert "mynet.nets" in trusted_packages()
    assert is_ours("mynet.nets.Tiny")
    assert not is_ours("mynet.nets.system")


@pytest.mark.parametrize("named", ["os", "ddpm", "torch.hub", "a b", "", "[subprocess]"])
def test_everybodys_packages_are_not_trusted(named, monkeypatch):
    monkeypatch.setenv("DDPM_TRUST", "")
    with pytest.raises(ValueError, match=r"trust must be packages of your own"):
        take_trust([f"trust={named}"])


def test_a_command_takes_trust_out_of_its_arguments_for_itself_and_what_it_starts(monkeypatch):
    monkeypatch.setenv("DDPM_TRUST", "other")
    assert take_trust(["ckpt=x", "trust=[mynet, 'more.parts']"]) == ["ckpt=x"]
    assert os.environ["DDPM_TRUST"] == "other,mynet,more.parts"


def test_a_training_with_code_of_ones_own_is_sampled_and_resumed(mine):
    def command(script, *words):
        return ended(Command(script, *words, folder=mine))

    small = [word for word in SMALL if not word.startswith("model.")]
    train = ("--config-dir", str(mine / "mine" / "conf"), *small, "model=tinyconv", "name=mine")
    code, text = command("train.py", *train)
    assert code == 0, text
    assert "mynet.nets.Tiny; commands that load this run need trust=[mynet]" in text
    code, text = command("sample.py", "ckpt=latest", "num_samples=2", "trainer=cpu")
    assert code == 2
    assert "if it is your own code, add trust=[mynet]" in text
    code, text = command("sample.py", "ckpt=latest", "num_samples=2", "trainer=cpu", "trust=[mynet]")
    assert code == 0, text
    code, text = command("train.py", *train, "resume=auto")  # names the code itself, so it need not be trusted
    assert code == 0, text
    assert "nothing is left to train" in text
