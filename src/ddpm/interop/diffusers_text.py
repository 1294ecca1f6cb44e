"""The text encoders of pipelines of diffusers: CLIP's (Stable Diffusion 1), and that of Rombach et al. 2022."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpm.base import check
from ddpm.interop.configuration import Config, leaf
from ddpm.interop.diffusers_files import read_config, refuse
from ddpm.interop.text_keys import UNUSED, their_keys
from ddpm.interop.weights import (
    Weights,
    load_tensors,
    name_errors,
    read_file,
    save_tensors,
    shapes_of,
    state_dict_of,
    to_ours,
)
from ddpm.networks.text.ldm_bert import BertEncoder, LdmBert
from ddpm.networks.text.pretrained import Clip

BERT = {"vocab_size": 30522, "max_position_embeddings": 77, "encoder_layers": 32, "encoder_attention_heads": 8}
BERT |= {"head_dim": 64, "d_model": 1280, "encoder_ffn_dim": 5120}
"""The fields of LDMBert's config that are followed, with their defaults."""
BERT_FIELDS = {
    "num_tokens": "max_position_embeddings",
    "token_channels": "d_model",
    "depth": "encoder_layers",
    "num_heads": "encoder_attention_heads",
    "head_channels": "head_dim",
    "num_words": "vocab_size",
}
"""The fields of our `LdmBert` and of LDMBert's config."""


@dataclass(frozen=True)
class TextPart:
    """text: its configuration. weights: of an encoder in the network; None: it is frozen and stays in its folder."""

    text: Config
    weights: Weights | None


def load_text(folder: Path) -> TextPart | None:
    """None without a text encoder. Raises ValueError for one of another kind."""
    words = str(folder / "tokenizer")
    if (folder / "text_encoder").is_dir():
        config = read_config(folder / "text_encoder" / "config.json")
        if config.get("model_type") != "clip_text_model":
            refuse("model_type", config.get("model_type"), "our encoder is CLIP's, clip_text_model")
        num_tokens = config.get("max_position_embeddings", 77)
        return TextPart(clip_leaf(str(folder / "text_encoder"), words, num_tokens), None)
    if (folder / "bert").is_dir():
        settings = bert_settings(read_config(folder / "bert" / "config.json"))
        with name_errors(folder / "bert"):
            return bert_part(words, settings, bert_weights(folder / "bert"), 1)
    return None


def clip_leaf(path: str, tokenizer: str | None, num_tokens: int = 77) -> Config:
    kept = {"num_tokens": num_tokens, "skip_layers": 0, "memory_limit_mb": 2048}
    return leaf("networks.text.pretrained.Clip", path=path, tokenizer=tokenizer, **kept)


def bert_part(words: str, settings: dict[str, Any], weights: Weights, names: int) -> TextPart:
    """words: place of the tokenizer. names: 0 for those of CompVis, 1 for those of diffusers."""
    shapes = shapes_of(BertEncoder, {"text": LdmBert(words, **settings)})
    used = {key: weight for key, weight in weights.items() if key not in UNUSED}
    ours = to_ours(used, shapes, lambda key: [their_keys(key)[names]])
    return TextPart(leaf("networks.text.ldm_bert.LdmBert", path=words, **settings), ours)


def bert_settings(config: Config) -> dict[str, Any]:
    """The arguments of `LdmBert`."""
    found = {name: config.get(name, default) for name, default in BERT.items()}
    for name, value in found.items():
        if type(value) is not int or value < 1:
            refuse(name, value, "a number of at least 1 is needed")
    if found["encoder_ffn_dim"] != 4 * found["d_model"]:
        refuse("encoder_ffn_dim", found["encoder_ffn_dim"], "our encoder has 4 times d_model")
    return {ours: found[theirs] for ours, theirs in BERT_FIELDS.items()}


def bert_weights(folder: Path) -> Weights:
    safe, pickled = folder / "model.safetensors", folder / "pytorch_model.bin"
    return load_tensors(safe) if safe.is_file() or not pickled.is_file() else state_dict_of(read_file(pickled), pickled)


def save_clip(folder: Path, text: Clip) -> Config:
    """Copy encoder and tokenizer into the folder of a pipeline. Returns their entries of model_index.json."""
    name = text.save(folder / "text_encoder", folder / "tokenizer")
    return {
        "text_encoder": ["transformers", Clip.model],
        "tokenizer": ["transformers", name],
        **{part: [None, None] for part in ("safety_checker", "feature_extractor", "image_encoder")},
        "requires_safety_checker": False,
    }


def save_bert(folder: Path, text: LdmBert, encoder: BertEncoder) -> Config:
    """As `save_clip`. diffusers pads texts to 77 tokens."""
    if text.num_tokens != 77:
        check.fail("text.num_tokens", text.num_tokens, "77 to be exported for diffusers")
    name = text.save_tokenizer(folder / "tokenizer")
    config = {theirs: getattr(text, ours) for ours, theirs in BERT_FIELDS.items()}
    config |= {"encoder_ffn_dim": 4 * text.token_channels, "architectures": ["LDMBertModel"], "model_type": "ldmbert"}
    (folder / "bert").mkdir()
    (folder / "bert" / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {their_keys(key)[1]: weight for key, weight in encoder.state_dict().items()}
    save_tensors(weights, folder / "bert" / "model.safetensors")
    return {"bert": ["latent_diffusion", "LDMBertModel"], "tokenizer": ["transformers", name]}
