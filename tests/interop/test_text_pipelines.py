"""Text-to-image pipelines of diffusers, shaped as Stable Diffusion 1 and ldm-text2im, against diffusers itself."""

import json

import compvis_files
import pytest
import torch
import transformers
from diffusers import AutoencoderKL, LDMTextToImagePipeline, StableDiffusionPipeline
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from latent_pipelines import TIMES, conditional, drawn, pipeline, rewrite, stage_of
from omegaconf import OmegaConf
from precision import assert_same
from small_runs import composed
from tiny_text import BERT_WORDS, bert_tokenizer, clip_folder, clip_tokenizer, randomized

import ddpm
from ddpm.commands import export
from ddpm.config import load

PROMPTS = ["a cat", ""]


def stable_diffusion(folder):
    unet, stage = conditional([1, 2], range(2), 4, tokens=16), stage_of(AutoencoderKL, 4, scaling_factor=0.18215)
    pipeline(folder, unet, stage, "vae", steps_offset=1)  # as published
    clip_folder(folder / "text_encoder")
    clip_tokenizer(folder / "tokenizer")
    return folder, unet


def text2im(folder):
    sizes = {"vocab_size": len(BERT_WORDS), "max_position_embeddings": 6, "encoder_layers": 2, "d_model": 24}
    heads = {"encoder_attention_heads": 2, "head_dim": 4, "encoder_ffn_dim": 96}
    bert = randomized(LDMBertModel(LDMBertConfig(**sizes, **heads)))
    unet = conditional([1, 2], range(2), 4, tokens=24)
    pipeline(folder, unet, stage_of(AutoencoderKL, 4, scaling_factor=0.18215), "vqvae")
    bert.save_pretrained(folder / "bert")
    bert_tokenizer(folder / "tokenizer")
    return folder, unet, bert


def f8_text2im(folder):
    sizes = {"vocab_size": len(BERT_WORDS), "encoder_layers": 2, "d_model": 24}
    heads = {"encoder_attention_heads": 2, "head_dim": 4, "encoder_ffn_dim": 96}
    bert = randomized(LDMBertModel(LDMBertConfig(**sizes, **heads)))
    unet = conditional([1, 2], range(2), 4, tokens=24)
    pipeline(folder, unet, stage_of(AutoencoderKL, 4, (1, 1, 1, 1), scaling_factor=0.18215), "vqvae")
    bert.save_pretrained(folder / "bert")
    bert_tokenizer(folder / "tokenizer")
    return folder, unet, bert


def loaded(folder):
    return load.from_checkpoint(folder, OmegaConf.create())[0]


def test_stable_diffusion_hears_the_prompt_as_diffusers_does(tmp_path):
    folder, unet = stable_diffusion(tmp_path)
    model, x = loaded(folder), drawn(2, 4, 16, 16)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = transformers.CLIPTextModel.from_pretrained(folder / "text_encoder")
    ids = tokenizer(PROMPTS, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        heard = encoder(ids).last_hidden_state.double()
    cond = {name: values.double() for name, values in model.condition.rows(PROMPTS).items()}
    assert_same(cond["tokens"], heard, 1e-5)  # the encoder computes in float32
    ours = model.network.double()(x, TIMES[:2], tokens=heard)
    assert_same(ours, unet.double()(x, TIMES[:2], encoder_hidden_states=heard).sample)


def test_the_authors_text_encoder_is_a_part_of_the_network(tmp_path):
    folder, unet, bert = text2im(tmp_path)
    model, x = loaded(folder), drawn(2, 4, 16, 16)
    (ids,) = model.condition.rows(PROMPTS).values()
    with torch.no_grad():
        heard = bert.double()(ids).last_hidden_state
        ours = model.network.double()(x, TIMES[:2], caption=ids)
    assert_same(ours, unet.double()(x, TIMES[:2], encoder_hidden_states=heard).sample)


def bert_keys(key, depth):
    """The name of a weight of diffusers' LDMBert in a file of CompVis: attention and feed-forward are layers there."""
    outer = {"embed_tokens": "token_emb", "embed_positions": "pos_emb.emb", "layer_norm": "norm"}
    attention = {"self_attn_layer_norm": "0", **{f"self_attn.{n}_proj": f"1.to_{n}" for n in ("q", "k", "v", "out")}}
    forward = {"final_layer_norm": "0", "fc1": "1.net.0.0", "fc2": "1.net.2"}
    place, _, kind = key.removeprefix("model.").rpartition(".")
    if not place.startswith("layers."):
        return f"transformer.{outer.get(place, place)}.{kind}"
    _, number, name = place.split(".", 2)
    second, inner = (0, attention[name]) if name in attention else (1, forward[name])
    return f"transformer.attn_layers.layers.{2 * int(number) + second}.{inner}.{kind}"


def test_a_file_of_compvis_with_a_text_encoder(tmp_path):
    sizes = {"vocab_size": len(BERT_WORDS), "max_position_embeddings": 6, "encoder_layers": 2, "d_model": 24}
    heads = {"encoder_attention_heads": 2, "head_dim": 64, "encoder_ffn_dim": 96}
    bert = randomized(LDMBertModel(LDMBertConfig(**sizes, **heads)))
    unet, stage = conditional([1, 2], range(2), 4, tokens=24), stage_of(AutoencoderKL, 4)
    text = {bert_keys(key, 2): weight for key, weight in bert.state_dict().items()}
    networks = compvis_files.unet_weights(unet, None), compvis_files.stage_weights(stage)
    torch.save(compvis_files.whole_file(*networks, text=text), tmp_path / "last.ckpt")
    (tmp_path / "last.json").write_text(json.dumps({"size": 16, "num_heads": 4, "scale": 0.18215}))
    words = OmegaConf.create({"text": {"path": str(bert_tokenizer(tmp_path / "tokenizer"))}})
    model, x = load.from_checkpoint(tmp_path / "last.ckpt", words)[0], drawn(2, 4, 16, 16)
    assert model.codec.scale == 0.18215
    (ids,) = model.condition.rows(PROMPTS).values()
    with torch.no_grad():
        heard = bert.double()(ids).last_hidden_state
        ours = model.network.double()(x, TIMES[:2], caption=ids)
    assert_same(ours, unet.double()(x, TIMES[:2], encoder_hidden_states=heard).sample)


def test_a_file_shaped_as_stable_diffusion_takes_clip_from_its_own_place(tmp_path):
    unet, stage = conditional([1, 2], range(2), 4, tokens=16), stage_of(AutoencoderKL, 4)
    text = {"transformer.text_model.embeddings.token_embedding.weight": torch.zeros(9, 16)}
    networks = compvis_files.unet_weights(unet, None), compvis_files.stage_weights(stage)
    torch.save(compvis_files.whole_file(*networks, text=text), tmp_path / "last.ckpt")
    (tmp_path / "last.json").write_text(json.dumps({"size": 16, "num_heads": 4, "scale": 0.18215}))
    model = ddpm.load(
        tmp_path / "last.ckpt", f"text.path={clip_folder(tmp_path / 'clip')}", "sampler=ddim", "sampler.steps=2"
    )
    cat, nothing = (model.sample(2, prompt=prompt) for prompt in PROMPTS)
    assert not torch.allclose(cat, nothing, atol=1e-3)


@pytest.mark.parametrize("made", [stable_diffusion, text2im], ids=["clip", "bert"])
def test_images_are_drawn_from_a_prompt_with_guidance(tmp_path, made):
    folder, *_ = made(tmp_path)
    words = ("sampler=ddim", "sampler.steps=2", "guidance=classifier_free", "guidance.scale=3")
    model = ddpm.load(folder, *words)
    cat, nothing = (model.sample(2, prompt=prompt) for prompt in PROMPTS)
    assert cat.shape == (2, 3, 32, 32)
    assert not torch.allclose(cat, nothing, atol=1e-3)


def test_a_pipeline_without_a_text_encoder_is_refused(tmp_path):
    unet, stage = conditional([1, 2], range(2), 4), stage_of(AutoencoderKL, 4, scaling_factor=0.18215)
    with pytest.raises(ValueError, match=r"takes a text, but there is no text encoder \(text_encoder/ or bert/\)"):
        loaded(pipeline(tmp_path, unet, stage, "vae"))


@pytest.mark.parametrize(
    ("made", "place", "change", "message"),
    [
        (stable_diffusion, "text_encoder", {"model_type": "t5"}, "model_type = 't5': our encoder is CLIP's"),
        (text2im, "bert", {"encoder_ffn_dim": 95}, "encoder_ffn_dim = 95: our encoder has 4 times d_model"),
        (text2im, "bert", {"encoder_layers": 3}, "the weights lack model.layers.2"),
        (text2im, "bert", {"d_model": "x"}, "d_model = 'x'"),
    ],
)
def test_a_text_encoder_of_another_shape_is_refused(tmp_path, made, place, change, message):
    folder, *_ = made(tmp_path)
    rewrite(folder / place / "config.json", **change)
    with pytest.raises(ValueError, match=message):
        loaded(folder)


@pytest.mark.parametrize(
    ("made", "kind"), [(stable_diffusion, StableDiffusionPipeline), (f8_text2im, LDMTextToImagePipeline)]
)
def test_an_exported_pipeline_opens_in_diffusers_and_here(tmp_path, made, kind, capsys):
    (tmp_path / "theirs").mkdir()
    folder, unet, *_ = made(tmp_path / "theirs")
    out = tmp_path / "out"
    export.run_export(composed("export", f"ckpt={folder}", f"out={out}", "format=diffusers"))
    printed = f"{kind.__name__}.from_pretrained({str(out)!r})('', guidance_scale=1.0, num_inference_steps=1000)"
    assert printed in capsys.readouterr().out
    pipe, ours = kind.from_pretrained(out), ddpm.load(folder, "sampler.steps=1")
    assert {**unet.state_dict()}.keys() == pipe.unet.state_dict().keys()
    again, latents = ddpm.load(out, "sampler.steps=1"), drawn(1, 4, 16, 16).float()
    for model in (ours, again):
        model.start = lambda ids, images=None: latents
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 1, "guidance_scale": 1.0, "latents": latents, "output_type": "np"}
    images = pipe(["a cat"], **options).images
    for model in (ours, again):
        expected = (model.sample(1, prompt="a cat") / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
        assert_same(torch.from_numpy(images).double(), expected.double(), 1e-5)
    assert ((expected > 0) & (expected < 1)).double().mean() > 0.2


def test_the_guidance_of_an_exported_pipeline_is_printed_or_refused(tmp_path, capsys):
    (tmp_path / "theirs").mkdir()
    folder, *_ = stable_diffusion(tmp_path / "theirs")
    words = (f"ckpt={folder}", "format=diffusers", "guidance=classifier_free", "guidance.scale=3")
    export.run_export(composed("export", *words, f"out={tmp_path / 'out'}"))
    assert "('', guidance_scale=3.0, num_inference_steps=1000)" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"guidance\.interval must be null for diffusers; format=safetensors exports"):
        export.run_export(composed("export", *words, f"out={tmp_path / 'other'}", "guidance.interval=[0.3,3]"))
