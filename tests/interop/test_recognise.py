"""What a path of weights is: by its content, whatever its name says."""

import json

import pytest
import torch

from ddpm.interop import recognise
from ddpm.interop.recognise import recognise as kind_of

FILES = [
    ({"config": {"model": {"_target_": "a"}}, "state_dict": {"network.input_blocks.0.0.weight": 0}}, recognise.OWN),
    ({"network.input_blocks.weight": 0}, recognise.OWN),
    ({"module.all_modules.0.weight": 0}, recognise.DDGAN),
    ({"netG_dict": {"module.all_modules.0.weight": 0}}, recognise.DDGAN),
    ({"time_embed.0.weight": 0, "input_blocks.0.0.weight": 0}, recognise.OPENAI),
    ({"state_dict": {"encoder.conv_in.weight": 0, "quant_conv.weight": 0, "loss.logvar": 0}}, recognise.COMPVIS_STAGE),
    (
        {"state_dict": {"model.diffusion_model.input_blocks.0.0.weight": 0, "first_stage_model.quant_conv.weight": 0}},
        recognise.COMPVIS,
    ),
]


@pytest.mark.parametrize("name", ["model.ckpt", "model.pth", "model"])
@pytest.mark.parametrize(("content", "kind"), FILES, ids=range(len(FILES)))
def test_a_file_is_known_by_the_names_of_its_weights(tmp_path, content, kind, name):
    torch.save(content, tmp_path / name)
    assert kind_of(tmp_path / name) == kind


def test_a_file_of_nothing_known_is_left_to_the_reader_that_says_what_it_is(tmp_path):
    for name in ("model.ckpt", "model.pt"):
        assert kind_of(tmp_path / name) == recognise.OWN  # there is none
        for content in (b"", b"PK\x03\x04 broken", b"\x80\x02."):
            (tmp_path / name).write_bytes(content)
            assert kind_of(tmp_path / name) == recognise.OWN


def written(folder, **about):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("about", "kind"),
    [
        ({"ddpm_format_version": 1}, recognise.EXPORTED),
        ({"_class_name": "UNet2DModel"}, recognise.UNET),
        ({}, recognise.UNET),
        ({"_class_name": "AutoencoderKL"}, recognise.STAGE),
        ({"_class_name": "VQModel"}, recognise.STAGE),
    ],
)
def test_a_folder_is_known_by_its_config(tmp_path, about, kind):
    written(tmp_path, **about)
    assert kind_of(tmp_path) == kind


def test_a_pipeline_is_known_by_its_parts(tmp_path):
    written(tmp_path / "unet", _class_name="UNet2DModel")
    assert kind_of(tmp_path) == recognise.UNET
    written(tmp_path / "vae", _class_name="AutoencoderKL")
    assert kind_of(tmp_path) == recognise.PIPELINE


@pytest.mark.parametrize("name", ["config.json", "model_index.json"])
def test_a_folder_of_another_model_of_diffusers_is_one_line(tmp_path, name):
    (tmp_path / name).write_text(json.dumps({"_class_name": ["DiTPipeline"]}))
    with pytest.raises(ValueError, match="which cannot be loaded"):
        kind_of(tmp_path)
    (tmp_path / name).write_text(json.dumps({"_class_name": "DiTPipeline"}))
    with pytest.raises(ValueError, match=r"is a folder of 'DiTPipeline', which cannot be loaded; UNet2DModel, .* can$"):
        kind_of(tmp_path)
