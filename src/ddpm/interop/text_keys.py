"""Names of the weights of `BertEncoder` in files of CompVis (after `cond_stage_model.`) and in diffusers' LDMBert."""

OUTER = {
    "words": ("token_emb", "embed_tokens"),
    "places": ("pos_emb.emb", "embed_positions"),
    "norm": ("norm", "layer_norm"),
}
"""By our name: the name of CompVis, the name in diffusers."""

INNER = {
    "norm1": (0, "0", "self_attn_layer_norm"),
    "attention.query": (0, "1.to_q", "self_attn.q_proj"),
    "attention.key": (0, "1.to_k", "self_attn.k_proj"),
    "attention.value": (0, "1.to_v", "self_attn.v_proj"),
    "attention.out": (0, "1.to_out", "self_attn.out_proj"),
    "norm3": (1, "0", "final_layer_norm"),
    "feed_forward.0": (1, "1.net.0.0", "fc1"),
    "feed_forward.2": (1, "1.net.2", "fc2"),
}
"""The same within a layer. CompVis counts attention and feed-forward as two layers, 0 and 1 of each of ours."""

UNUSED = {"transformer.to_logits.weight", "transformer.to_logits.bias", "to_logits.weight", "to_logits.bias"}
"""Weights of both that predict words. No image depends on them, and `BertEncoder` has none."""


def their_keys(key: str) -> tuple[str, str]:
    """The name of one of our weights in files of CompVis, and that in diffusers."""
    place, _, kind = key.rpartition(".")
    if place in OUTER:
        compvis, diffusers = OUTER[place]
    else:
        _, number, part = place.split(".", 2)
        second, inner, diffusers = INNER[part]
        compvis, diffusers = f"attn_layers.layers.{2 * int(number) + second}.{inner}", f"layers.{number}.{diffusers}"
    return f"transformer.{compvis}.{kind}", f"model.{diffusers}.{kind}"
