"""Published first stages: folders of diffusers and files of CompVis, against diffusers itself in float64."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, VQModel
from networks import awake
from omegaconf import OmegaConf
from precision import assert_same
from safetensors.torch import load_file, save_file

from ddpm.config import codec, load
from ddpm.interop import diffusers_first_stage as interop

SHAPE = {
    **{"in_channels": 3, "out_channels": 3, "block_out_channels": [8, 16, 16], "layers_per_block": 2},
    **{"norm_num_groups": 4, "latent_channels": 5, "sample_size": [16, 24]},
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
}
X = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)).double()
NOTHING = OmegaConf.create()
WEIGHTS = "diffusion_pytorch_model.safetensors"


def theirs(kind, **changes):
    arguments = SHAPE | ({"num_vq_embeddings": 17} if kind is VQModel else {}) | changes
    return awake(kind(**arguments)).float().eval()


def stage(path):
    return load.guide(path, codec.FIRST_STAGE)


def rewrite(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in (config | changes).items() if v != "left out"}))


def assert_one_stage(ours, theirs):
    ours, theirs = ours.double(), theirs.double()
    if isinstance(theirs, VQModel):
        z = theirs.encode(X).latents
        assert_same(ours.moments(X), z)
    else:
        posterior = theirs.encode(X).latent_dist
        z = posterior.mean
        assert_same(ours.mean(ours.moments(X)), z)
        assert_same(ours.std(ours.moments(X)), posterior.std)
    assert_same(ours.decode(z), theirs.decode(z).sample)


@pytest.mark.parametrize("middle", [True, False])
@pytest.mark.parametrize("kind", [AutoencoderKL, VQModel])
@pytest.mark.parametrize("place", ["", "vae", "vqvae"])
@torch.no_grad()
def test_a_loaded_first_stage_computes_what_that_of_diffusers_does(tmp_path, kind, place, middle):
    network = theirs(kind, mid_block_add_attention=middle)
    network.save_pretrained(tmp_path / place)
    if place:  # of a pipeline
        (tmp_path / "unet").mkdir()
    model = stage(tmp_path)
    assert model.image_shape == (3, 16, 24)
    assert_one_stage(model.network, network)


@torch.no_grad()
def test_old_names_of_weights_and_files_of_torch_save_are_understood(tmp_path):
    network = theirs(AutoencoderKL)
    network.save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    for new, old in {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}.items():
        assert any(new in key for key in weights)
        weights = {key.replace(new, old): weight for key, weight in weights.items()}
    (tmp_path / WEIGHTS).unlink()
    torch.save(weights, tmp_path / "diffusion_pytorch_model.bin")
    assert_one_stage(stage(tmp_path).network, network)


@pytest.mark.parametrize(
    ("kind", "stated", "scale"),
    [(AutoencoderKL, 0.3, 0.3), (AutoencoderKL, "left out", 0.18215), (VQModel, 0.5, 0.5), (VQModel, "left out", 1.0)],
)
def test_the_published_scale_is_that_of_the_config_and_a_model_of_codes_without_one_has_none(
    tmp_path, kind, stated, scale
):
    theirs(kind).save_pretrained(tmp_path)
    rewrite(tmp_path, scaling_factor=stated)
    assert codec.published_scale(tmp_path, load.guide) == scale


@pytest.mark.parametrize("kind", [AutoencoderKL, VQModel])
def test_what_a_config_leaves_out_is_what_diffusers_takes_for_it(kind):
    config = {name: value for name, value in kind().config.items() if not name.startswith("_")}
    assert {n: list(v) if isinstance(v, tuple) else v for n, v in config.items()} == interop.DEFAULTS[kind.__name__]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("act_fn", "gelu", "act_fn = 'gelu'"),
        ("use_quant_conv", False, "use_quant_conv = False"),
        ("shift_factor", 0.1, "shift_factor = 0.1"),
        ("down_block_types", ["DownEncoderBlock2D"], "down_block_types = "),
        ("up_block_types", ["UpDecoderBlock2D"] * 3, "up_block_types = "),
        ("block_out_channels", [8, 12, 16], "block_out_channels = "),
        ("latent_channels", "5", "latent_channels = '5'"),
        ("out_channels", 4, "out_channels = 4"),
        ("something_new", 1, "something_new = 1"),
        ("scaling_factor", -1, "scaling_factor must be greater than 0"),
        ("mid_block_add_attention", 3, "middle_attention must be true or false, got 3"),
        ("latent_channels", 6, r"has shape \[10, 16, 3, 3\]"),
        ("_class_name", "FluxTransformer2DModel", "is a folder of 'FluxTransformer2DModel', which cannot be loaded"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(tmp_path, field, value, message):
    theirs(AutoencoderKL).save_pretrained(tmp_path)
    rewrite(tmp_path, **{field: value})
    with pytest.raises(ValueError, match=message):
        stage(tmp_path)


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path):
    theirs(AutoencoderKL).save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    key = "decoder.mid_block.attentions.0.to_q.weight"
    for broken, message in [
        ({k: w for k, w in weights.items() if k != key}, f"lack {key}"),
        (weights | {"extra.weight": torch.zeros(1)}, "have extra.weight"),
        (weights | {key: torch.zeros(8, 16)}, f"{key} has shape"),
    ]:
        save_file(broken, tmp_path / WEIGHTS)
        with pytest.raises(ValueError, match=message):
            stage(tmp_path)
