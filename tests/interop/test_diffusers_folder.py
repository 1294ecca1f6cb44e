"""Folders of diffusers' UNet2DModel, against diffusers itself: the same weights must give the same images."""

import inspect
import json
import os

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from networks import awake
from precision import assert_same
from safetensors.torch import load_file, save_file

from ddpm.interop import diffusers as interop
from ddpm.networks import UNet

# google/ddpm-cifar10-32's config.json, but for the sizes
CONFIG = {
    "sample_size": 16,
    "layers_per_block": 2,
    "block_out_channels": (8, 16, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "act_fn": "silu",
    "attention_head_dim": None,
    "center_input_sample": False,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-6,
    "norm_num_groups": 4,
    "time_embedding_type": "positional",
}
WEIGHTS = "diffusion_pytorch_model.safetensors"
OLD_NAMES = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


def theirs(channels=3, **changes):
    """A UNet2DModel in which every weight is random: fresh from its constructor some would hide mistakes."""
    return awake(UNet2DModel(**CONFIG | {"in_channels": channels, "out_channels": channels} | changes).eval()).float()


def rewrite(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def assert_one_network(ours, theirs, channels=3, batch=4, size=(16, 24)):
    x = torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1)).double()
    time = torch.tensor([0, 1, 500, 999])[-batch:]
    assert_same(ours.double()(x, time), theirs.double()(x, time).sample)


@pytest.fixture
def folder(tmp_path):
    theirs().save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("time", ["default", "scale_shift"])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
def test_a_loaded_network_gives_the_images_of_diffusers(tmp_path, channels, batch, time):
    network = theirs(channels, resnet_time_scale_shift=time, attn_norm_num_groups=4)
    network.save_pretrained(tmp_path)
    loaded = interop.load_diffusers(tmp_path)
    assert_one_network(loaded.network, network, channels, batch)
    assert not loaded.network.training
    assert loaded.scheduler is None


def test_several_heads_and_attention_at_the_coarsest_level_are_followed(tmp_path):
    down, up = ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D")
    network = theirs(down_block_types=down, up_block_types=up, attention_head_dim=4, layers_per_block=1, dropout=0.1)
    network.save_pretrained(tmp_path)
    loaded = interop.load_diffusers(tmp_path).network
    assert (loaded.settings["num_heads"], loaded.settings["dropout"]) == (4, 0.1)
    assert_one_network(loaded, network)


def test_the_old_names_of_attention_weights_are_understood(folder):
    weights = load_file(folder / WEIGHTS)
    for new, old in OLD_NAMES.items():
        assert any(new in key for key in weights)
        weights = {key.replace(new, old): weight for key, weight in weights.items()}
    save_file(weights, folder / WEIGHTS)
    assert_one_network(interop.load_diffusers(folder).network, theirs())


def test_the_network_of_the_training_example_of_diffusers_is_read(tmp_path):
    """examples/unconditional_image_generation, narrower: all that is not a width is the default of UNet2DModel."""
    down, up = ["DownBlock2D"] * 6, ["UpBlock2D"] * 6
    down[4], up[1] = "AttnDownBlock2D", "AttnUpBlock2D"
    shape = {"down_block_types": down, "up_block_types": up, "block_out_channels": (32, 32, 64, 64, 128, 128)}
    network = awake(UNet2DModel(sample_size=32, layers_per_block=2, **shape).eval()).float()
    assert (network.config.freq_shift, network.config.attention_head_dim) == (0, 8)
    network.save_pretrained(tmp_path)
    assert_one_network(interop.load_diffusers(tmp_path).network, network, size=(32, 64))


def test_the_published_config_is_the_published_network():
    published = {
        "block_out_channels": [128, 256, 256, 256],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        "norm_num_groups": 32,
        "_class_name": "UNet2DModel",
        "_diffusers_version": "0.1.1",
    }
    with torch.device("meta"):
        network = UNet(**interop.unet_settings(CONFIG | published))
    assert sum(parameter.numel() for parameter in network.parameters()) == 35_746_307


def test_a_pipeline_folder_brings_its_scheduler(tmp_path):
    network = theirs()
    network.save_pretrained(tmp_path / "unet")
    scheduler = DDPMScheduler(500, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    scheduler.save_pretrained(tmp_path / "scheduler")
    loaded = interop.load_diffusers(tmp_path)
    assert loaded.scheduler == interop.Scheduler(500, "squaredcos_cap_v2", 1e-4, 0.02, "v_prediction")
    assert_one_network(loaded.network, network)


def test_a_scheduler_config_beside_the_weights_is_found_and_its_gaps_are_filled_as_diffusers_does(folder):
    (folder / "scheduler_config.json").write_text('{"_class_name": "DDPMScheduler", "beta_end": 0.01}')
    defaults = DDPMScheduler().config
    found = vars(interop.load_diffusers(folder).scheduler)
    assert found.keys() == {name for name in defaults if not name.startswith("_")} | {"multistep"}
    known = {name: defaults[name] for name in found.keys() - {"multistep"}}
    assert found == known | {"beta_end": 0.01, "prediction_type": "epsilon", "multistep": False}


@pytest.mark.parametrize("scale_shift", [False, True])
def test_a_network_of_ours_opens_in_diffusers(tmp_path, scale_shift):
    others = {"num_heads": 2, "num_groups": 4, "dropout": 0.1, "scale_shift": scale_shift}
    network = UNet(3, 8, [1, 2, 2], 1, [1], out_channels=6, **others).eval()
    for parameter in network.requires_grad_(False).parameters():
        parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
    interop.save_network(network, tmp_path / "new" / "folder")
    opened, notes = UNet2DModel.from_pretrained(tmp_path / "new" / "folder", output_loading_info=True)
    assert not any(notes.values())
    assert_one_network(network, opened)
    assert interop.load_diffusers(tmp_path / "new" / "folder").network.settings == network.settings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flip_sin_to_cos", True),
        ("freq_shift", 0),
        ("downsample_padding", 1),
        ("norm_eps", 1e-5),
        ("act_fn", "gelu"),
        ("resnet_time_scale_shift", "ada_group"),
        ("attn_norm_num_groups", 2),
        ("class_embed_type", "identity"),
        ("block_out_channels", [8, 12, 16]),
        ("down_block_types", ["DownBlock2D", "ResnetDownsampleBlock2D", "DownBlock2D"]),
        ("up_block_types", ["UpBlock2D", "UpBlock2D", "UpBlock2D"]),
        ("something_new", "yes"),
    ],
)
def test_a_setting_that_our_network_does_not_have_is_refused_by_name_and_value(folder, field, value):
    rewrite(folder, **{field: value})
    with pytest.raises(ValueError, match=f"{field} = ") as refusal:
        interop.load_diffusers(folder)
    assert repr(value) in str(refusal.value)


def test_what_a_config_leaves_out_is_what_diffusers_takes_for_it():
    parameters = list(inspect.signature(UNet2DModel.__init__).parameters.values())[1:]
    defaults = {p.name: list(p.default) if isinstance(p.default, tuple) else p.default for p in parameters}
    assert defaults == interop.DEFAULTS


@pytest.mark.parametrize("setting", [{"patch_size": 2}, {"num_heads": 2, "attention_levels": [0]}])
def test_what_diffusers_does_not_have_is_not_saved_for_it(tmp_path, setting):
    with pytest.raises(ValueError, match=f"^{next(iter(setting))} must be 1"):
        interop.save_network(UNet(1, 8, [1, 2], 1, num_groups=4, **setting), tmp_path)
    assert not list(tmp_path.iterdir())


def test_weights_in_a_pickle_of_diffusers_are_read_as_data(tmp_path):
    network = theirs()
    network.save_pretrained(tmp_path, safe_serialization=False)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "diffusion_pytorch_model.bin"}
    assert_one_network(interop.load_diffusers(tmp_path).network, network)


def test_weights_in_several_files_are_read_and_an_index_names_files_of_its_folder_only(tmp_path):
    network = theirs()
    network.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len([*tmp_path.glob("*.safetensors")]) > 1
    assert_one_network(interop.load_diffusers(tmp_path).network, network)
    index = tmp_path / f"{WEIGHTS}.index.json"
    index.write_text(json.dumps({"weight_map": {"conv_in.weight": "../elsewhere.safetensors"}}))
    with pytest.raises(ValueError, match="names of files in this folder"):
        interop.load_diffusers(tmp_path)


def test_a_file_of_torch_save_is_read_as_data(folder, tmp_path):
    file = folder / "diffusion_pytorch_model.bin"
    torch.save(load_file(folder / WEIGHTS), file)
    (folder / WEIGHTS).unlink()
    assert_one_network(interop.load_diffusers(folder).network, theirs())
    torch.save({"conv_in.weight": Hostile(tmp_path / "mark")}, file)
    with pytest.raises(ValueError, match=r"cannot be read as data: it refers to .*mkdir.*no code in it was run"):
        interop.load_diffusers(folder)
    assert not (tmp_path / "mark").exists()


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_weights_that_do_not_fit_their_config_are_refused_by_name(folder):
    weights = load_file(folder / WEIGHTS)
    key = "mid_block.attentions.0.to_q.weight"
    for broken, message in [
        ({k: w for k, w in weights.items() if k != key}, f"lack {key}"),
        (weights | {"extra.weight": torch.zeros(1)}, "have extra.weight"),
        (weights | {key: torch.zeros(8, 16)}, f"{key} has shape"),
    ]:
        save_file(broken, folder / WEIGHTS)
        with pytest.raises(ValueError, match=message):
            interop.load_diffusers(folder)


def test_a_folder_without_a_network_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"folder must be .* config.json, got"):
        interop.load_diffusers(tmp_path)
    theirs().save_config(tmp_path)
    with pytest.raises(ValueError, match=f"has no {WEIGHTS}"):
        interop.load_diffusers(tmp_path)
