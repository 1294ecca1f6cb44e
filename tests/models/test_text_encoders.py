"""Text encoders against transformers and diffusers, their tokenizers, and embeddings that are computed once."""

import json
import os
import pickle
import re
import shutil
import sys
import warnings

import huggingface_hub
import hydra
import pytest
import tiny_text
import torch
import transformers
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from networks import awake, num_parameters
from omegaconf import OmegaConf
from precision import assert_same
from small_runs import ROOT

from ddpm.base.weights_hash import weights_hash
from ddpm.interop.text_keys import UNUSED, their_keys
from ddpm.interop.weights import to_ours
from ddpm.networks import UNet
from ddpm.networks.text.frozen import FrozenText
from ddpm.networks.text.ldm_bert import LdmBert
from ddpm.networks.text.pretrained import T5, Clip

SMALL = {"num_tokens": 7, "token_channels": 24, "depth": 3, "num_heads": 2, "head_channels": 8, "num_words": 12}
NUMBERS = torch.tensor([[2, 5, 7, 3, 0, 0, 0], [2, 11, 11, 8, 1, 6, 3]])


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a test asked the network")

    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.fixture
def clip(tmp_path):
    return tiny_text.clip_folder(tmp_path / "clip")


@pytest.fixture
def t5(tmp_path):
    return tiny_text.t5_folder(tmp_path / "t5")


def chosen(name, **changes):
    """The option text=NAME of the configuration."""
    return hydra.utils.instantiate({**OmegaConf.load(ROOT / "conf" / "text" / f"{name}.yaml"), **changes})


# The encoder that is trained


def their_bert():
    sizes = {"vocab_size": 12, "max_position_embeddings": 7, "encoder_layers": 3, "d_model": 24}
    attention = {"encoder_attention_heads": 2, "head_dim": 8}
    return LDMBertModel(LDMBertConfig(**sizes, **attention, encoder_ffn_dim=96)).double().eval()


def test_ldm_bert_equals_that_of_diffusers():
    ours, theirs = awake(LdmBert("unused", **SMALL).encoder()), their_bert()
    renamed = {their_keys(key)[1]: weight for key, weight in ours.state_dict().items()}
    report = theirs.load_state_dict(renamed, strict=False)
    assert not report.unexpected_keys
    assert set(report.missing_keys) == UNUSED & theirs.state_dict().keys()
    assert_same(ours(NUMBERS), theirs(NUMBERS)[0])


def test_weights_of_diffusers_and_of_compvis_become_ours():
    ours = LdmBert("unused", **SMALL).encoder()
    for program in (0, 1):
        theirs = {their_keys(key)[program]: weight for key, weight in ours.state_dict().items()}
        assert len(theirs) == len(ours.state_dict())
        found = to_ours(theirs, ours.state_dict(), lambda key, program=program: [their_keys(key)[program]])
        assert all(torch.equal(found[key], weight) for key, weight in ours.state_dict().items())


def test_the_names_of_the_published_text_to_image_model_are_known():
    """Its 422 tensors, as in the file of CompVis, with some of their shapes."""
    with torch.device("meta"):
        weights = chosen("ldm_bert").encoder().state_dict()
    theirs = {their_keys(key)[0]: [*weight.shape] for key, weight in weights.items()}
    assert len(theirs) + len([name for name in UNUSED if name.startswith("transformer.")]) == 422
    layers = "transformer.attn_layers.layers"
    published = {
        "transformer.token_emb.weight": [30522, 1280],
        "transformer.pos_emb.emb.weight": [77, 1280],
        f"{layers}.0.0.weight": [1280],
        f"{layers}.0.0.bias": [1280],
        f"{layers}.0.1.to_q.weight": [512, 1280],
        f"{layers}.0.1.to_k.weight": [512, 1280],
        f"{layers}.0.1.to_v.weight": [512, 1280],
        f"{layers}.0.1.to_out.weight": [1280, 512],
        f"{layers}.0.1.to_out.bias": [1280],
        f"{layers}.1.0.weight": [1280],
        f"{layers}.1.1.net.0.0.weight": [5120, 1280],
        f"{layers}.1.1.net.0.0.bias": [5120],
        f"{layers}.1.1.net.2.weight": [1280, 5120],
        f"{layers}.63.1.net.2.bias": [1280],
        "transformer.norm.weight": [1280],
        "transformer.norm.bias": [1280],
    }
    assert {name: theirs[name] for name in published} == published


LAYOUT = {"token_channels": 512, "depth": 16, "num_words": 8192, "num_tokens": 92}


@pytest.mark.parametrize(
    ("changes", "published", "num_logits"),
    [
        ({}, 542_895_360, 0),  # txt2img-1p4B
        ({"token_channels": 640}, 166_590_080, 0),  # text2img256
        (LAYOUT, 58_858_496, 8192 * 512 + 8192),  # layout2img-openimages256, counted with the logits
    ],
)
def test_ldm_bert_has_the_published_number_of_parameters(changes, published, num_logits):
    with torch.device("meta"):
        assert num_parameters(chosen("ldm_bert", **changes).encoder()) == published - num_logits


def test_the_unet_of_txt2img_has_the_published_number_of_parameters():
    settings = OmegaConf.load(ROOT / "conf" / "model" / "ldm_txt2img_1p4b.yaml")
    settings = {name: settings[name] for name in settings if name not in ("_target_", "text", "vocabulary")}
    with torch.device("meta"):
        network = UNet(token_channels=chosen("ldm_bert").token_channels, **settings)
    assert num_parameters(network) == 872_300_484


def test_ldm_bert_is_trained_and_has_gradients_everywhere():
    text = LdmBert("unused", **SMALL)
    encoder = text.encoder()
    encoder(NUMBERS).square().sum().backward()
    assert text.trained
    assert all(parameter.grad.any() for parameter in encoder.parameters())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"depth": 0}, "text.depth must be a positive integer, got 0"),
        ({"num_words": "many"}, "text.num_words must be a positive integer, got 'many'"),
        ({"num_words": 10**13}, "GB of memory"),
        ({"depth": 10**12}, "GB of memory"),
    ],
)
def test_bad_sizes_of_ldm_bert_are_one_line(changes, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        LdmBert("unused", **SMALL | changes)


# Tokenizers


def test_bert_reads_word_pieces_in_lower_case(tmp_path):
    text = LdmBert(str(tiny_text.bert_tokenizer(tmp_path)), **SMALL)
    found = text.tokenize(["", "A red cats", "Elk, dog"])
    assert found.dtype == torch.int64
    assert found.tolist() == [[2, 3, 0, 0, 0, 0, 0], [2, 5, 6, 7, 8, 3, 0], [2, 1, 11, 10, 3, 0, 0]]


def test_clip_and_t5_read_and_pad_as_published(clip, t5):
    assert Clip(str(clip), num_tokens=6).tokenize(["", "a Cat"]).tolist() == [[0, 1, 1, 1, 1, 1], [0, 5, 8, 1, 1, 1]]
    assert T5(str(t5), num_tokens=5).tokenize(["", "a cats"]).tolist() == [[1, 0, 0, 0, 0], [4, 5, 6, 1, 0]]


def test_what_is_cut_of_a_long_text_is_said(tmp_path, clip, t5):
    bert = LdmBert(str(tiny_text.bert_tokenizer(tmp_path)), **SMALL)
    long = "a red cat and a red\x1b[31m dog"
    with pytest.warns(UserWarning, match=r"text.num_tokens=7: of 'a red .*', 'red\\x1b\[31m dog' is cut$"):
        assert bert.tokenize(["a", long, "red"]).tolist()[1] == [2, 5, 6, 7, 9, 5, 3]
    with pytest.warns(UserWarning, match="'dog' is cut, as are the ends of 1 other texts"):
        assert bert.tokenize(["a a a a a dog", "a", "a a a a a a"])[1].tolist() == [2, 5, 3, 0, 0, 0, 0]
    with pytest.warns(UserWarning, match="'cat' is cut"):
        Clip(str(clip), num_tokens=4).tokenize(["cat a cat"])
    with pytest.warns(UserWarning, match="'a cat' is cut"):
        T5(str(t5), num_tokens=2).tokenize(["cat a cat"])


def test_a_text_of_exactly_the_length_is_not_cut(tmp_path):
    bert = LdmBert(str(tiny_text.bert_tokenizer(tmp_path)), **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bert.tokenize(["a a a a a", "a a a a a \t\u200b", "\ud800"])


def test_a_tokenizer_must_fit_its_encoder(tmp_path):
    folder = str(tiny_text.bert_tokenizer(tmp_path))
    with pytest.raises(ValueError, match=r"text.path: the tokenizer in .* has 12 words, but the encoder 11"):
        LdmBert(folder, **SMALL | {"num_words": 11}).tokenize([""])
    with pytest.raises(ValueError, match=r"text.num_tokens must be an integer of at least 3, got 2"):
        LdmBert(folder, **SMALL | {"num_tokens": 2}).tokenize([""])
    with pytest.raises(ValueError, match="caption must be numbers of tokens, got 12"):
        LdmBert(folder, **SMALL).encoder()(torch.full((1, 7), 12))


# Frozen encoders


def test_clip_equals_that_of_transformers(clip):
    text, theirs = Clip(str(clip), num_tokens=6), transformers.CLIPTextModel.from_pretrained(clip).double()
    numbers = text.tokenize(["", "a cat"])
    assert text.token_channels == 16
    assert_same(text.encoder().double()(numbers), theirs(numbers).last_hidden_state)


def test_skipped_layers_of_clip_end_with_the_final_norm(clip):
    text, theirs = Clip(str(clip), skip_layers=2), transformers.CLIPTextModel.from_pretrained(clip).double()
    numbers = torch.tensor([[0, 5, 8, 1, 1]])
    hidden = theirs(numbers, output_hidden_states=True).hidden_states[1]
    assert_same(text.encoder().double()(numbers), theirs.final_layer_norm(hidden))


def test_t5_equals_that_of_transformers_without_a_mask(t5):
    text, theirs = T5(str(t5), num_tokens=6), transformers.T5EncoderModel.from_pretrained(t5).double()
    numbers = text.tokenize(["", "a cats"])
    assert text.token_channels == 16
    assert_same(text.encoder().double()(numbers), theirs(numbers).last_hidden_state)


def test_the_text_half_of_a_whole_clip_is_taken_and_half_precision_becomes_float32(tmp_path, clip):
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    sizes = {"vision_config": {**vision, "image_size": 8, "patch_size": 4}, "projection_dim": 4}
    whole = transformers.CLIPModel(transformers.CLIPConfig(text_config=tiny_text.clip_config().to_dict(), **sizes))
    part = transformers.CLIPTextModel.from_pretrained(clip)
    whole.load_state_dict({f"text_model.{k}": v for k, v in part.state_dict().items()}, strict=False)
    whole.half().save_pretrained(tmp_path / "whole")
    found = Clip(str(tmp_path / "whole"), tokenizer=str(clip)).encoder()
    assert {weight.dtype for weight in found.parameters()} == {torch.float32}
    numbers = torch.tensor([[0, 5, 8, 1]])
    assert_same(found.double()(numbers), part.half().double()(numbers).last_hidden_state)


def test_a_frozen_encoder_has_no_gradients_and_no_training_mode(clip, t5):
    for text in (Clip(str(clip)), T5(str(t5))):
        encoder = text.encoder()
        assert not text.trained
        assert not any(part.training for part in encoder.modules())
        assert not any(weight.requires_grad for weight in encoder.parameters())


def test_reading_an_encoder_draws_no_random_numbers(clip):
    before = torch.get_rng_state()
    Clip(str(clip)).embed(["a"])
    assert torch.equal(torch.get_rng_state(), before)


# Files


def cached(folder, hub, name):
    """The folder as the hub's cache has the repository `name`."""
    repository = hub / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / "0a1b")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0a1b")


def test_a_repository_comes_from_the_cache_of_the_hub_without_a_network(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ValueError, match=r"^text.path must be a folder, or .* hf download me/clip\), got 'me/clip'$"):
        Clip("me/clip").encoder()
    cached(clip, tmp_path / "hub", "me/clip")
    numbers = torch.tensor([[0, 5, 8, 1]])
    assert torch.equal(Clip("me/clip").encoder()(numbers), Clip(str(clip)).encoder()(numbers))
    assert Clip("me/clip", num_tokens=4).tokenize(["a cat"]).tolist() == numbers.tolist()


@pytest.mark.parametrize("path", ["", None, 3, "no/such/folder", "../no_such", "a b"])
def test_a_path_without_files_is_one_line(path):
    for text in (Clip(path), T5(path), LdmBert(path)):
        with pytest.raises(ValueError, match=r"^text.path must be a folder, .*, got [^\n]*$"):
            text.tokenize(["a"])


def test_folders_of_something_else_are_one_line(clip, t5, tmp_path):
    (tmp_path / "empty").mkdir()
    empty = str(tmp_path / "empty")
    tiny_text.bert_tokenizer(tmp_path / "bert")
    said = {
        lambda: LdmBert(empty).tokenize([""]): r"text.path: .*empty has no tokenizer, one of .*vocab.txt",
        lambda: Clip(str(clip), str(tmp_path / "bert")).tokenize([""]): r"text.tokenizer: .* 12 words, .* encoder 9",
        lambda: Clip(str(clip), empty).tokenize([""]): r"text.tokenizer: .*empty has no tokenizer",
        lambda: Clip(empty).encoder(): r"text.path: .*empty has no configuration of a CLIPTextModel",
        lambda: Clip(str(t5)).token_channels: r"text.path: .* must hold a CLIPTextModel, but its model_type is t5",
        lambda: T5(str(clip)).encoder(): r"must hold a T5EncoderModel, but its model_type is clip_text_model",
        lambda: Clip(str(clip), num_tokens=78).token_channels: r"text.num_tokens must be an integer in 1..77, got 78",
        lambda: Clip(str(clip), skip_layers=3).encoder(): r"text.skip_layers must be an integer in 0..2, got 3",
        lambda: Clip(str(clip), num_tokens=0): r"text.num_tokens must be a positive integer, got 0",
        lambda: T5(str(t5), memory_limit_mb=-1): r"text.memory_limit_mb must be a number at least 0, got -1",
    }
    for attempt, pattern in said.items():
        with pytest.raises(ValueError, match=f"^[^\\n]*{pattern}[^\\n]*$"):
            attempt()


def test_missing_and_misshapen_weights_are_one_line(clip):
    weights = transformers.CLIPTextModel.from_pretrained(clip).state_dict()
    (clip / "model.safetensors").unlink()
    lacking = {key: weight for key, weight in weights.items() if key != "final_layer_norm.bias"}
    torch.save(lacking, clip / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"lacks 1 weights of a CLIPTextModel: .*final_layer_norm.bias"):
        Clip(str(clip)).encoder()
    torch.save({**weights, "final_layer_norm.bias": torch.zeros(3)}, clip / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"^[^\n]* has no CLIPTextModel that can be read \([^\n]*\)$"):
        Clip(str(clip)).encoder()


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("hostile",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_code_in_the_files_is_run(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (clip / "model.safetensors").unlink()
    (clip / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Hostile()}))
    with pytest.raises(ValueError, match="has no CLIPTextModel that can be read"):
        Clip(str(clip)).encoder()
    torch.save({"a": Hostile()}, clip / "pytorch_model.bin")
    with pytest.raises(ValueError, match="has no CLIPTextModel that can be read"):
        Clip(str(clip)).encoder()
    kernel = json.loads((clip / "config.json").read_text()) | {"attn_implementation": "someone/kernel"}
    transformers.CLIPTextModel(tiny_text.clip_config()).save_pretrained(clip)
    (clip / "config.json").write_text(json.dumps(kernel))
    assert Clip(str(clip)).encoder().model.config._attn_implementation == "sdpa"
    own = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", "mine.Mine"]}}
    (clip / "tokenizer_config.json").write_text(json.dumps(own))
    (clip / "mine.py").write_text("import os\nos.mkdir('hostile')\n")
    with pytest.raises(ValueError, match="has no tokenizer that can be read"):
        Clip(str(clip)).tokenize(["a"])
    assert not (tmp_path / "hostile").exists()


def test_without_transformers_the_remedy_is_said(monkeypatch, clip):
    monkeypatch.setitem(sys.modules, "transformers", None)
    for text in (Clip(str(clip)), T5(str(clip)), LdmBert(str(clip))):
        with pytest.raises(ValueError, match=r"need transformers, which is not installed: pip install ddpm\[text\]"):
            text.tokenize(["a"])


# Embeddings that are computed once


class Counting(torch.nn.Module):
    """Embeds each number by itself, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(200, 4)
        self.calls = []

    def forward(self, numbers):
        self.calls.append(numbers.tolist())
        return self.table(numbers) @ self.table.weight.T[:, :4]


class Letters:
    num_tokens, token_channels, trained = 3, 4, False

    def __init__(self):
        self.network = Counting().requires_grad_(False)

    def tokenize(self, texts):
        return torch.tensor([[ord(letter) for letter in text.ljust(3)[:3]] for text in texts])

    def encoder(self):
        return self.network


def test_each_text_is_embedded_once_and_alone():
    text = Letters()
    embed = FrozenText(text)
    found = embed(["cat", "dog", "cat", ""])
    assert found.dtype == torch.float32
    assert found.shape == (4, 3, 4)
    assert [len(numbers) for numbers in text.network.calls] == [1, 1, 1]
    again = embed(("", "elk", "cat"))
    assert len(text.network.calls) == 4
    assert torch.equal(again[2], found[0])
    assert torch.equal(again[0], found[3])
    assert torch.equal(found[1], text.network(text.tokenize(["dog"]))[0])


def test_embeddings_ignore_autocast_and_can_be_trained_through():
    embed = FrozenText(Letters())
    with torch.autocast("cpu", torch.bfloat16):
        found = embed(["cat"])
    assert torch.equal(found, FrozenText(embed.text)(["cat"]))
    weight = torch.ones(4, requires_grad=True)
    (found * weight).sum().backward()
    assert torch.allclose(weight.grad, found.sum((0, 1)))


def test_no_more_than_the_limit_is_kept_and_this_is_said_once():
    text = Letters()
    embed = FrozenText(text, memory_limit_mb=2 * 48e-6)  # two embeddings of 3 x 4 numbers
    embed(["a", "b"])
    with pytest.warns(UserWarning, match=r"text.memory_limit_mb=9.6e-05 is used up") as said:
        third = embed(["c", "c", "a"])[0]
    assert len(said) == 1
    assert len(text.network.calls) == 3, "once in a call, though it is not kept"
    with pytest.warns(UserWarning, match="is used up"):
        assert torch.equal(embed(["c"])[0], third)
    embed(["a", "b"])
    assert len(text.network.calls) == 4


def test_the_hash_is_that_of_the_weights(clip):
    text = Clip(str(clip), num_tokens=6)
    assert text.embed.sha256 == weights_hash(text.encoder())
    assert Clip(str(clip), num_tokens=6, skip_layers=1).embed.sha256 != text.embed.sha256
    assert torch.equal(text.embed(["a cat"])[0], text.encoder()(text.tokenize(["a cat"]))[0])


def test_an_encoder_can_be_pickled_before_and_after_its_use(clip):
    text = Clip(str(clip), num_tokens=6)
    found = text.embed(["a"])
    for copy in (pickle.loads(pickle.dumps(text)), pickle.loads(pickle.dumps(Clip(str(clip), num_tokens=6)))):
        assert copy == text
        assert torch.equal(copy.embed(["a"]), found)
