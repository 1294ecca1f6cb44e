"""A file that is no checkpoint: the message says what it is and what to do."""

import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import save_file

from ddpm.config.load import from_checkpoint

WEIGHTS = {"a.weight": torch.ones(2)}


def write_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "x")


def torchscript(path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), str(path))


FILES = {
    "safetensors": (lambda path: save_file(WEIGHTS, path), "it is a file of safetensors, .*: give a folder"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "it is a pickle, .*torch.save"),
    "old torch": (
        lambda path: torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False),
        "it is a file of torch.save before PyTorch 1.6: load and save it once",
    ),
    "html": (lambda path: path.write_text("\n<!DOCTYPE html><p>404"), "it is an HTML page, .*: download the file"),
    "lfs": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "run git lfs pull"),
    "png": (lambda path: Image.new("L", (4, 4)).save(path, "png"), "it is an image: images=FOLDER"),
    "jpeg": (lambda path: Image.new("L", (4, 4)).save(path, "jpeg"), "it is an image: images=FOLDER"),
    "npz": (lambda path: np.savez(path.open("wb"), a=np.ones(2)), "it is a file of NumPy arrays"),
    "npy": (lambda path: np.save(path.open("wb"), np.ones(2)), "it is a file of NumPy arrays"),
    "zip": (write_zip, "it is an archive: unpack it"),
    "json": (lambda path: path.write_text(json.dumps({"ä" * 400: 1})), "it is a text file, which holds no weights"),
    "empty": (lambda path: path.write_bytes(b""), "it is an empty file: copy or download it again"),
    "torchscript": (torchscript, r"it is a program of TorchScript: .*state_dict\(\)"),
    "module": (
        lambda path: torch.save(torch.nn.Linear(2, 2), path),
        r"linear.Linear; only .* torch.save\(model.state",
    ),
    "lightning": (
        lambda path: torch.save({"state_dict": WEIGHTS, "pytorch-lightning_version": "2.0"}, path),
        "it is a Lightning checkpoint of another program, .*; convert it",
    ),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pkl", ".safetensors"])
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_file_of_another_kind_is_named(kind, suffix, tmp_path):
    write, message = FILES[kind]
    path = tmp_path / f"file{suffix}"
    write(path)
    with pytest.raises(ValueError, match=message) as caught:
        from_checkpoint(path, OmegaConf.create())
    assert str(caught.value).startswith(f"ckpt={path} ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.ckpt", "x.pt"])
def test_a_state_dict_is_named_with_its_first_weight(name, tmp_path):
    torch.save(WEIGHTS, tmp_path / name)
    with pytest.raises(ValueError, match=r"it is a state dict of 1 weights, the first 'a.weight', .*; convert it"):
        from_checkpoint(tmp_path / name, OmegaConf.create())


@pytest.mark.parametrize("name", ["x.ckpt", "x.pt"])
def test_a_tensor_is_named_with_its_shape(name, tmp_path):
    torch.save(torch.ones(2, 3), tmp_path / name)
    with pytest.raises(ValueError, match=r"it is one tensor of shape \[2, 3\], .*; convert it"):
        from_checkpoint(tmp_path / name, OmegaConf.create())


def test_a_safetensors_file_beside_its_settings_is_named_with_its_folder(tmp_path):
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=f"give its folder, {tmp_path}; no code"):
        from_checkpoint(tmp_path / "model.safetensors", OmegaConf.create())


def test_a_folder_without_a_model_says_what_would_be_in_one(tmp_path):
    with pytest.raises(ValueError, match=r"^ckpt=.* is a folder without a model: a run has checkpoints/ in it"):
        from_checkpoint(tmp_path, OmegaConf.create())
