"""Published models of latents: folders of diffusers and files of CompVis, against diffusers itself in float64.

Each is of a published shape at a base width of 32, with random weights.
"""

import json
import os

import compvis_files
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel, UNet2DModel, VQModel
from diffusers.models.attention_processor import Attention
from latent_pipelines import TIMES, arguments, conditional, drawn, pipeline, rewrite, stage_of
from networks import awake
from omegaconf import OmegaConf
from precision import assert_same

from ddpm.base.untrusted import Inert
from ddpm.config import codec, load
from ddpm.interop import compvis, diffusers_latent
from ddpm.interop.weights import read_file
from ddpm.model.latent_codec import LatentCodec

NOTHING = OmegaConf.create()
WAYS = {"down": "DownEncoder", "up": "UpDecoder"}


def celebahq(**others):
    return awake(UNet2DModel(**arguments(3, [1, 2, 3, 4], [1, 2, 3], attention_head_dim=32, **others))).float().eval()


def church():
    plain = "Resnet{}sampleBlock2D"
    shape = {"downsample_type": "resnet", "upsample_type": "resnet", "resnet_time_scale_shift": "scale_shift"}
    network = UNet2DModel(
        **arguments(
            4, [1, 2, 2, 4, 4], [0, 1, 2, 3], plain=plain, attn_norm_num_groups=32, attention_head_dim=8, **shape
        )
    )
    for module in network.modules():
        if isinstance(module, Attention):
            module.heads = 8
    return awake(network).float().eval()


def loaded(path):
    return load.from_checkpoint(path, NOTHING)[0]


def assert_one_network(ours, theirs, side=16, **cond):
    x = drawn(3, theirs.config.in_channels, side, side)
    told = {"tokens": cond["encoder_hidden_states"]} if cond else {}
    assert_same(ours.double()(x, TIMES, **told), theirs.double()(x, TIMES, **cond).sample)


def assert_one_stage(ours, theirs):
    x = drawn(2, 3, 16, 16, seed=3)
    encoded = theirs.double().encode(x)
    z = encoded.latents if isinstance(theirs, VQModel) else encoded.latent_dist.mean
    ours = ours.double()
    assert_same(ours.mean(ours.moments(x)), z)
    assert_same(ours.decode(z), theirs.decode(z).sample)


# Folders of diffusers


@torch.no_grad()
def test_a_folder_of_network_and_codes_is_a_model_of_latents(tmp_path):
    unet, stage = celebahq(), stage_of(VQModel, 3)
    folder = pipeline(tmp_path, unet, stage, "vqvae")
    rewrite(folder / "vqvae" / "config.json", scaling_factor="left out")
    model = loaded(folder)
    assert isinstance(model.codec, LatentCodec)
    assert (model.codec.scale, model.image_shape, model.latent_shape) == (1.0, (3, 32, 32), (3, 16, 16))
    betas = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64) ** 2
    assert_same(model.sampler.process.schedule.alpha_bar[1:], (1 - betas).cumprod(0))
    assert_one_network(model.network, unet)
    assert_one_stage(model.codec.network, stage)
    assert_one_stage(load.guide(folder, codec.FIRST_STAGE).network, stage)


@torch.no_grad()
def test_a_folder_draws_what_networks_and_scheduler_of_diffusers_draw(tmp_path, config):
    """By DDIM with eta 0 from the same noise; the first stage's scale divides."""
    unet, stage = celebahq(), stage_of(VQModel, 3, scaling_factor=0.5)
    folder = pipeline(tmp_path, unet, stage, "vqvae", clip_sample=False, timestep_spacing="trailing")
    words = (f"ckpt={folder}", "sampler=ddim", "sampler.steps=4")
    model = load.from_checkpoint(folder, load.changes(config("sample", *words)))[0].double()
    x = model.start(torch.arange(2)).double()
    model.start = lambda ids, images=None: x
    found = model.generate(torch.arange(2), "raw")
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    scheduler.alphas_cumprod = model.sampler.process.schedule.alpha_bar[1:]  # theirs is float32
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    scheduler.set_timesteps(4)
    z = x
    for t in scheduler.timesteps:
        z = scheduler.step(unet.double()(z, t).sample, t, z).prev_sample
    assert_same(found, stage.double().decode(z / 0.5).sample, 1e-8)


@torch.no_grad()
@pytest.mark.parametrize("heads", [8, [1, 2, 4]])
def test_a_network_of_tokens_comes_with_first_stage_and_scheduler(tmp_path, heads):
    """Shaped as Stable Diffusion 1, without its text encoder."""
    mults = [1, 2, 4, 4] if heads == 8 else [1, 2, 4]
    levels = range(len(mults) - (heads == 8))
    unet, stage = conditional(mults, levels, heads), stage_of(AutoencoderKL, 4, scaling_factor=0.18215)
    model = diffusers_latent.load_latent(pipeline(tmp_path, unet, stage, "vae"))
    network = model.builder(**model.settings)
    network.load_state_dict(model.weights)
    assert_one_network(network, unet, encoder_hidden_states=drawn(3, 7, 12, seed=2))
    assert (model.settings["token_channels"], model.first_stage.scale, model.scheduler.beta_end) == (
        12,
        0.18215,
        0.0195,
    )
    with pytest.raises(ValueError, match="takes a text"):
        loaded(tmp_path)


def test_the_published_network_of_stable_diffusion_has_its_count():
    settings = diffusers_latent.conditional_settings({"cross_attention_dim": 768})
    with torch.device("meta"):
        network = compvis.UNet(**settings)
    assert sum(parameter.numel() for parameter in network.parameters()) == 859_520_964


def test_what_the_config_of_a_conditional_network_leaves_out_is_what_diffusers_takes_for_it():
    config = {name: value for name, value in UNet2DConditionModel().config.items() if not name.startswith("_")}
    assert {n: list(v) if isinstance(v, tuple) else v for n, v in config.items()} == diffusers_latent.DEFAULTS


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("use_linear_projection", True, "use_linear_projection = True"),
        ("attention_head_dim", [8, 8], r"attention_head_dim = \[8, 8\]: a number of heads"),
        ("attention_head_dim", [1, 2, 2], "the same number of heads, or of channels"),
        ("attention_head_dim", "8", "attention_head_dim = '8'"),
        ("cross_attention_dim", [1, 2], r"cross_attention_dim = \[1, 2\]"),
        ("transformer_layers_per_block", [1, 2], r"transformer_depth must be a positive integer, got \[1, 2\]"),
        ("freq_shift", 1, "freq_shift = 1"),
        ("sample_size", None, "add sample_size"),
    ],
)
def test_a_conditional_network_that_cannot_be_is_refused_by_name(tmp_path, field, value, message):
    folder = pipeline(tmp_path, conditional([1, 2, 4], range(3), [1, 2, 4]), stage_of(VQModel, 4), "vqvae")
    rewrite(folder / "unet" / "config.json", **{field: value})
    with pytest.raises(ValueError, match=message):
        diffusers_latent.load_latent(folder)


def test_a_scheduler_that_clips_latents_is_refused_with_what_to_choose(tmp_path, config):
    folder = pipeline(tmp_path, celebahq(), stage_of(VQModel, 3), "vqvae", clip_sample=True)
    with pytest.raises(ValueError, match=r"clip=StaticThresholding .* choose clip=none"):
        loaded(folder)
    words = load.changes(config("sample", f"ckpt={folder}", "clip=none"))
    assert load.from_checkpoint(folder, words)[0].latent_shape == (3, 16, 16)


def test_a_pipeline_without_a_scheduler_is_refused(tmp_path):
    folder = pipeline(tmp_path, celebahq(), stage_of(VQModel, 3), "vqvae")
    (folder / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(ValueError, match=r"has no scheduler/scheduler_config\.json"):
        loaded(folder)


# Files of CompVis


def written(tmp_path, content, **beside):
    path = tmp_path / "last.ckpt"
    torch.save(content, path)
    if beside:
        path.with_suffix(".json").write_text(json.dumps(beside))
    return path


@torch.no_grad()
@pytest.mark.parametrize("name", ["celebahq", "church"])
def test_a_file_without_conditions_is_the_network_of_diffusers(tmp_path, name):
    if name == "celebahq":
        unet, stage, heads, beside = celebahq(), stage_of(VQModel, 3), lambda width: width // 32, {"head_channels": 32}
    else:
        unet, stage, heads, beside = church(), stage_of(AutoencoderKL, 4), lambda width: 8, {"num_heads": 8}
    weights, scale = compvis_files.unet_weights(unet, heads), 0.25 if name == "church" else None
    raw = {key: torch.randn_like(weight) for key, weight in weights.items()}
    content = compvis_files.whole_file(raw, compvis_files.stage_weights(stage), averages=weights, scale=scale)
    path = written(tmp_path, content, size=16, **beside)
    model = loaded(path)
    assert (model.codec.scale, model.image_shape) == (scale or 1.0, (3, 32, 32))
    assert_one_network(model.network, unet)
    assert_one_stage(model.codec.network, stage)
    assert_one_stage(load.guide(path, codec.FIRST_STAGE).network, stage)


@torch.no_grad()
@pytest.mark.parametrize("name", ["cin256", "cin256-v2"])
def test_a_file_of_classes_is_the_network_of_diffusers_with_one_token(tmp_path, name, config):
    guided = name == "cin256-v2"
    mults, levels, heads = ([1, 2, 3, 5], [1, 2, 3], 1) if guided else ([1, 2, 4], [0, 1, 2], [1, 2, 4])
    unet, stage, table = conditional(mults, levels, heads), stage_of(VQModel, 4), drawn(6 if guided else 5, 12).float()
    content = compvis_files.whole_file(
        compvis_files.unet_weights(unet, None), compvis_files.stage_weights(stage), classes=table
    )
    beside = {"num_heads": 1, "null_embedding": True} if guided else {"head_channels": 32}
    path = written(tmp_path, content, size=16, **beside)
    model = loaded(path)
    x, label = drawn(3, 4, 16, 16), torch.tensor([4, 0, -1])
    tokens = torch.stack([table[4], table[0], table[5] if guided else torch.zeros(12)])[:, None].double()
    expected = unet.double()(x, TIMES, encoder_hidden_states=tokens).sample
    assert_same(model.network.double()(x, TIMES, label=label), expected)
    assert model.condition.network_settings == {"num_classes": 5}
    if guided:  # it was trained without classes too
        words = (f"ckpt={path}", "guidance=classifier_free", "guidance.scale=3")
        load.from_checkpoint(path, load.changes(config("sample", *words)))
    assert_one_stage(model.codec.network, stage)


@torch.no_grad()
@pytest.mark.parametrize("name", ["inpaint", "superres", "semantic"])
def test_a_file_with_a_condition_beside_x_is_the_network_of_diffusers(tmp_path, name):
    more = 4 if name == "inpaint" else 3
    unet, stage = celebahq(in_channels=3 + more), stage_of(VQModel, 3)
    content = compvis_files.whole_file(
        compvis_files.unet_weights(unet, lambda width: width // 32), compvis_files.stage_weights(stage)
    )
    mapper = drawn(3, 5, 1, 1, seed=4).float()
    if name == "semantic":
        content["state_dict"]["cond_stage_model.channel_mapper.weight"] = mapper
    model = loaded(written(tmp_path, content, **BESIDE))
    x, beside = drawn(3, 3, 16, 16), drawn(3, more, 16, 16, seed=2)
    cond = {"concat": beside}
    if name == "semantic":  # one map of 0 and 1 for each label, halved twice
        labels = torch.randint(5, (3, 64, 64), generator=torch.Generator().manual_seed(0))
        maps = torch.nn.functional.one_hot(labels, 5).permute(0, 3, 1, 2).double()
        for _ in range(2):
            maps = torch.nn.functional.interpolate(maps, scale_factor=0.5, mode="bilinear")
        cond, beside = {"label_map": labels}, torch.nn.functional.conv2d(maps, mapper.double())
    expected = unet.double()(torch.cat([x, beside], 1), TIMES).sample
    assert_same(model.network.double()(x, TIMES, **cond), expected)
    kinds = {"inpaint": "Masked", "superres": "LowResolution", "semantic": "Semantic"}
    assert type(model.condition).__name__ == kinds[name]


@torch.no_grad()
@pytest.mark.parametrize("kind", [AutoencoderKL, VQModel])
@pytest.mark.parametrize("place", ["state_dict", "bare"])
def test_a_file_of_a_first_stage_is_that_of_diffusers_and_its_loss_is_dropped(tmp_path, kind, place):
    stage = stage_of(kind, 5, (1, 2, 4), mid_block_add_attention=True)
    state = compvis_files.stage_weights(stage) | {"loss.logvar": torch.zeros(()), "loss.d.num": torch.tensor(3)}
    path = written(tmp_path, {"epoch": 1, "state_dict": state} if place == "state_dict" else state)
    for model in (loaded(path), load.guide(path, codec.FIRST_STAGE)):
        assert_one_stage(model.network, stage)
    if kind is AutoencoderKL:
        with pytest.raises(ValueError, match=r"codec\.scale must be null or a number, because .* states no scale"):
            codec.published_scale(path, load.guide)


def test_the_published_shapes_are_those_of_this_projects_options(config):
    for (base, mults, tokens), known in compvis.PUBLISHED.items():
        if tokens in (640, 768):  # no option has the shapes of text2img256 and of Stable Diffusion 1
            continue
        names = {224: "ldm_celebahq", 256: "ldm_cin256", 192: "ldm_cin256_v2" if tokens else "ldm_church"}
        names |= {320: "ldm_txt2img_1p4b", 160: "ldm_superres", 128: "ldm_semantic"}
        names |= {256: "ldm_inpaint"} if len(mults) == 4 else {}
        option = config("train", f"model={names[base]}").model
        assert (option.base_channels, tuple(option.channel_mults), option.get("token_channels")) == (
            base,
            mults,
            None if tokens == 1280 else tokens,  # the text encoder says it
        )
        assert option.get("head_channels") == known.head_channels
        assert option.get("num_heads") in (known.num_heads, 1 if known.head_channels else None)
        assert bool(option.get("null_embedding")) == known.null_embedding


@pytest.fixture(scope="module")
def small():
    """The file of a small model."""
    unet, stage = celebahq(), stage_of(VQModel, 3)
    return lambda: compvis_files.whole_file(
        compvis_files.unet_weights(unet, lambda width: width // 32), compvis_files.stage_weights(stage)
    )


BESIDE = {"size": 16, "head_channels": 32}


class Foreign:
    """A class of another program, whose module is gone when its objects are read."""


class Hostile:
    def __init__(self, call, argument):
        self.call = call, (argument,)

    def __reduce__(self):
        return self.call


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_objects_of_other_programs_become_inert_and_nothing_runs(tmp_path, small, monkeypatch):
    Foreign.__module__ = "a_program_that_is_gone.callbacks"
    stand_in = type(os)("a_program_that_is_gone.callbacks")
    stand_in.Foreign = Foreign
    monkeypatch.setitem(__import__("sys").modules, "a_program_that_is_gone", type(os)("a_program_that_is_gone"))
    monkeypatch.setitem(__import__("sys").modules, "a_program_that_is_gone.callbacks", stand_in)
    found = Foreign()
    found.monitor = "val/loss"
    content = {**small(), "callbacks": {Foreign: {"best": found}}}
    path = written(tmp_path, content, **BESIDE)
    monkeypatch.undo()
    assert read_file(path, inert=None)["callbacks"][Inert]["best"].monitor == "val/loss"
    assert loaded(path).latent_shape == (3, 16, 16)


def test_a_hostile_pickle_runs_nothing(tmp_path, small):
    """Whatever it calls: modules of the system are refused, other functions are inert."""
    mark = tmp_path / "mark"
    path = written(tmp_path, {**small(), "callbacks": Hostile(os.mkdir, str(mark))}, **BESIDE)
    with pytest.raises(ValueError, match=r"^ckpt=.* cannot be read as data: .*no code in it was run$") as error:
        loaded(path)
    assert "\n" not in str(error.value)
    loaded(written(tmp_path, {**small(), "callbacks": Hostile(exec, f"__import__('os').mkdir({str(mark)!r})")}))
    assert not mark.exists()


def changed(content, **changes):
    state = {**content["state_dict"], **changes}
    return {**content, "state_dict": {key: value for key, value in state.items() if value is not None}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"betas": None}, "it lacks betas"),
        ({"betas": torch.linspace(1e-4, 0.02, 1000)}, "its betas are of another schedule"),
        ({"betas": -torch.ones(10)}, "betas must be greater than 0"),
        ({"scale_factor": torch.ones(2)}, "scale_factor has shape"),
        ({"first_stage_model.encoder.conv_in.weight": None}, "it lacks encoder.conv_in.weight"),
        ({"first_stage_model.quant_conv.bias": None}, "lack quant_conv.bias"),
        ({"first_stage_model.extra": torch.ones(2)}, "have extra"),
        ({"model.diffusion_model.out.2.bias": None}, "lack out.2.bias"),
        ({"model.diffusion_model.out.2.bias": torch.ones(4)}, "out.2.bias has shape"),
        ({"model.diffusion_model.time_embed.0.weight": None}, "it lacks time_embed.0.weight"),
        (
            {"model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.ones(4, 4)},
            "its network takes tokens, but it has neither cond_stage_model.embedding.weight nor a text encoder",
        ),
        ({"cond_stage_model.embedding.weight": torch.ones(7)}, "cond_stage_model.embedding.weight has shape"),
        ({"note": "hello"}, "must hold a state dict of weights, and 'note' is none"),
    ],
    ids=str,
)
def test_a_file_that_lacks_something_is_one_line(tmp_path, small, changes, message):
    path = written(tmp_path, changed(small(), **changes), **BESIDE)
    with pytest.raises(ValueError, match=f"^ckpt=.*{message}") as error:
        loaded(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({}, "the shapes of a published model.* last.json beside it must be a JSON object of size, num_heads"),
        ({"size": 16}, "num_heads and head_channels must be one or the other"),
        ({"size": 16, "num_heads": 0}, "num_heads must be a positive integer, got 0"),
        ({"num_heads": 1}, "must be a JSON object of size, .* with size"),
        ({"size": 16, "num_heads": 1, "other": 2}, "must be a JSON object of size"),
        ({"size": 16, "num_heads": 3}, "num_heads must be a divisor"),
    ],
)
def test_what_weights_do_not_say_is_asked_for(tmp_path, small, beside, message):
    with pytest.raises(ValueError, match=message):
        loaded(written(tmp_path, small(), **beside))


def test_a_file_of_nothing_known_says_what_it_is_taken_for(tmp_path):
    path = written(tmp_path, {"state_dict": {"a": torch.ones(3)}})
    with pytest.raises(ValueError, match=r"is not a checkpoint of this project.* OpenAI, .*CompVis"):
        loaded(path)
