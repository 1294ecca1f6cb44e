"""Names of weights in diffusers, for each of ours in U-Nets and first stages. qkv is three weights there."""

import re

from ddpm.interop.weights import Weights

SIDE = r"^((?:encoder\.|decoder\.)?)"  # halves of a first stage; a U-Net has none
TO_THEIRS = [
    (SIDE + r"stem\.", r"\1conv_in."),
    (SIDE + r"norm\.", r"\1conv_norm_out."),
    (SIDE + r"out\.", r"\1conv_out."),
    (r"^to_moments\.", "quant_conv."),
    (r"^from_z\.", "post_quant_conv."),
    (r"^codebook\.", "quantize.embedding."),
    (r"^label\.", "class_embedding."),
    (r"^time\.linear", "time_embedding.linear_"),
    (SIDE + r"(down|up)\.(\d+)\.", r"\1\2_blocks.\3."),
    (SIDE + r"middle\.(\d+)\.", r"\1mid_block.blocks.\2."),
    (r"\.blocks\.(\d+)\.res\.", r".resnets.\1."),
    (r"\.blocks\.(\d+)\.attention\.", r".attentions.\1."),
    (r"(down|up)_blocks\.(\d+)\.resample\.", r"\1_blocks.\2.\1samplers.0."),
    (r"\.time\.", ".time_emb_proj."),
    (r"\.shortcut\.", ".conv_shortcut."),
    (r"\.norm\.", ".group_norm."),
    (r"\.out\.", ".to_out.0."),
]
IN_TRANSFORMER = {
    **{"layers": "transformer_blocks", "attention": "attn1", "cross": "attn2", "feed_forward": "ff"},
    **{"query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0", "expand": "net.0.proj", "project": "net.2"},
}
"""Parts of a spatial transformer whose names differ."""
OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""Names in files of early versions of diffusers."""


def their_keys(key: str) -> list[str]:
    place, _, inner = key.partition(".transformer.")
    if inner:
        (theirs,) = their_keys(f"{place}.attention.")
        return [theirs + in_transformer(inner)]
    for pattern, theirs in TO_THEIRS:
        key = re.sub(pattern, theirs, key)
    return [key.replace(".qkv.", f".to_{name}.") for name in "qkv"] if ".qkv." in key else [key]


def in_transformer(key: str) -> str:
    """A key within a spatial transformer."""
    return ".".join(IN_TRANSFORMER.get(name, name) for name in key.split("."))


def to_theirs(weights: Weights) -> Weights:
    """Our state dict under the names of diffusers."""
    renamed: Weights = {}
    for key, weight in weights.items():
        keys = their_keys(key)
        if ".attention." in key and weight.dim() == 4:
            weight = weight[:, :, 0, 0]  # linear maps in diffusers, 1x1 convolutions here
        renamed.update(zip(keys, weight.chunk(len(keys)), strict=True))
    return renamed


def to_new_names(weights: Weights) -> Weights:
    """Weights of any version of diffusers under the names of the current one."""
    for old, new in OLD_NAMES.items():
        weights = {key.replace(old, new): weight for key, weight in weights.items()}
    return weights
