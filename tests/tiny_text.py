"""Folders of text encoders as their authors publish them, with few words and random weights."""

import json

import torch
import transformers

BERT_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "cat", "##s", "and", "dog", ","]
CLIP_WORDS = ["<|startoftext|>", "<|endoftext|>", "a", "c", "t", "a</w>", "t</w>", "ca", "cat</w>"]
CLIP_MERGES = ["#version: 0.2", "c a", "ca t</w>"]
T5_WORDS = ["<pad>", "</s>", "<unk>", "▁", "▁a", "▁cat", "s"]


def bert_tokenizer(folder):
    """As bert-base-uncased: a vocabulary, and a configuration that names the kind."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(BERT_WORDS) + "\n")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return folder


def clip_tokenizer(folder):
    """As the tokenizer of Stable Diffusion 1."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(CLIP_WORDS)}))
    (folder / "merges.txt").write_text("\n".join(CLIP_MERGES) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return folder


def clip_config(**changes):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vocabulary = {"vocab_size": len(CLIP_WORDS), "max_position_embeddings": 77}
    return transformers.CLIPTextConfig(**sizes, **ends, **vocabulary, **changes)


def t5_config():
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    return transformers.T5Config(vocab_size=len(T5_WORDS), feed_forward_proj="gated-gelu", **sizes)


def randomized(model):
    """With weights that are far from their start, as small as those of a trained network."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def clip_folder(folder):
    randomized(transformers.CLIPTextModel(clip_config())).save_pretrained(folder)
    return clip_tokenizer(folder)


def t5_folder(folder):
    randomized(transformers.T5EncoderModel(t5_config())).save_pretrained(folder)
    words = [(word, -float(number)) for number, word in enumerate(T5_WORDS)]
    transformers.T5Tokenizer(vocab=words, extra_ids=0).save_pretrained(folder)
    return folder
