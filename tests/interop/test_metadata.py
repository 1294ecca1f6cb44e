"""What an exported file says of itself."""

import hashlib
import json
import struct

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from safetensors.torch import load_file

import ddpm
from ddpm.commands import export
from ddpm.interop.weights import save_tensors


def metadata(file):
    """The header of a safetensors file, read by its published layout: its length, then JSON."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length])["__metadata__"]


def exported(*words):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(export.CONF), version_base="1.3"):
        export.run_export(compose("export", overrides=["format=safetensors", *words]))


def test_an_exported_file_says_what_it_is(copied, tmp_path):
    out = tmp_path / "out"
    words = [f"ckpt={copied()}", "weights=ema", "license=cc-by-4.0", f"out={out}"]
    exported(*words)
    about, stored = metadata(out / "model.safetensors"), json.loads((out / "config.json").read_text())
    content = json.dumps(stored["config"], sort_keys=True).encode()
    assert about["config_sha256"] == hashlib.sha256(content).hexdigest()
    assert (about["license"], about["format"], about["ddpm"]) == ("cc-by-4.0", "pt", ddpm.__version__)
    assert about["weights"] == stored["weights"]
    steps = [int(path.stem) for path in (tmp_path / "run" / "checkpoints").glob("0*.ckpt")]
    assert int(about["step"]) == max(steps)


def test_a_license_is_an_identifier(copied, tmp_path):
    words = [f"ckpt={copied()}", "license='a: b'", f"out={tmp_path / 'out'}"]
    with pytest.raises(ValueError, match=r"license must be .*, got 'a: b'"):
        exported(*words)
    assert not (tmp_path / "out").exists()


def test_an_export_of_an_export_keeps_step_and_license(copied, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    exported(f"ckpt={copied()}", "license=mit", f"out={first}")
    exported(f"ckpt={first}", f"out={second}")
    about = metadata(second / "model.safetensors")
    assert (about["step"], about["license"]) == (metadata(first / "model.safetensors")["step"], "mit")


def test_equal_tensors_and_metadata_are_equal_files(tmp_path):
    tensors, about = {"b": torch.arange(3.0), "ä": torch.ones(2, 2)}, {name: name for name in "stepconfig"}
    for number in range(8):
        save_tensors(tensors, tmp_path / str(number), about)
    assert len({(tmp_path / str(number)).read_bytes() for number in range(8)}) == 1
    found = load_file(tmp_path / "0")  # by the library, which checks the header
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert metadata(tmp_path / "0") == {"format": "pt"} | about
