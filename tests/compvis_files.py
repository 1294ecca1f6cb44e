"""Files as CompVis' latent diffusion writes them, of the weights of diffusers' networks: the key map between both."""

import re
from collections import OrderedDict

import torch

RES = {
    **{"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1"},
    **{"norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"},
}
TOP = {
    **{"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"},
    **{"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"},
}


def unet_key(key, num_blocks, attended):
    """attended: whether the level going up with this number has attention."""
    name, _, kind = key.rpartition(".")
    if name in TOP:
        return f"{TOP[name]}.{kind}"
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", key):
        place = f"middle_block.{1 if match[1] == 'attentions' else 2 * int(match[2])}"
        return f"{place}.{inner(match[1], match[3])}"
    way, level, part, number, rest = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", key).groups()
    level, number = int(level), int(number)
    if way == "down":
        block = 1 + level * (num_blocks + 1) + (num_blocks if part == "downsamplers" else number)
    else:
        block = level * (num_blocks + 1) + (num_blocks if part == "upsamplers" else number)
    block, way = f"{'input' if way == 'down' else 'output'}_blocks.{block}", way
    if part.endswith("samplers"):
        layer = 0 if way == "down" else 1 + attended(level)
        within = rest.replace("conv.", "op." if way == "down" else "conv.", 1) if rest.startswith("conv.") else None
        return f"{block}.{layer}.{within or inner('resnets', rest)}"
    return f"{block}.{int(part == 'attentions')}.{inner(part, rest)}"


def inner(part, rest):
    name, _, kind = rest.rpartition(".")
    if part == "resnets":
        return f"{RES[name]}.{kind}"
    return {"group_norm": "norm", "to_out.0": "proj_out"}.get(name, name) + f".{kind}"


def unet_weights(network, heads):
    """heads: number of heads for a width. qkv is sorted by head first."""
    levels = [bool(getattr(block, "attentions", None)) for block in network.up_blocks]
    weights, state = OrderedDict(), network.state_dict()
    for key, weight in state.items():
        theirs = unet_key(key, network.config.layers_per_block, lambda level: levels[level])
        if ".transformer_blocks." in key or ".attentions." not in key or ".proj_" in key or ".norm." in key:
            weights[theirs] = weight
        elif ".to_q." in key:
            parts = [state[key.replace("to_q", f"to_{name}")] for name in "qkv"]
            width = len(weight)
            by_head = torch.stack([part.unflatten(0, (heads(width), -1)) for part in parts], 1).flatten(0, 2)
            weights[theirs.replace("to_q", "qkv")] = by_head[..., None] if by_head.dim() == 2 else by_head
        elif ".to_k." not in key and ".to_v." not in key:
            weights[theirs] = weight[..., None] if weight.dim() == 2 else weight
    return weights


STAGE = [
    (r"conv_norm_out", "norm_out"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"(down|up)_blocks\.(\d)\.resnets\.", r"\1.\2.block."),
    (r"(down|up)_blocks\.(\d)\.attentions\.", r"\1.\2.attn."),
    (r"(down|up)_blocks\.(\d)\.\w+samplers\.0\.", r"\1.\2.\1sample."),
    (r"conv_shortcut", "nin_shortcut"),
    (r"(attn_1|attn\.\d)\.group_norm", r"\1.norm"),
    (r"(attn_1|attn\.\d)\.to_([qkv])", r"\1.\2"),
    (r"(attn_1|attn\.\d)\.to_out\.0", r"\1.proj_out"),
]


def stage_weights(network):
    weights, last = OrderedDict(), len(network.config.block_out_channels) - 1
    for key, weight in network.state_dict().items():
        is_attention = "attentions" in key
        for pattern, name in STAGE:
            key = re.sub(pattern, name, key)
        key = re.sub(r"decoder\.up\.(\d)", lambda match: f"decoder.up.{last - int(match[1])}", key)
        weights[key] = weight[:, :, None, None] if is_attention and weight.dim() == 2 else weight
    return weights


def whole_file(unet, stage, averages=None, classes=None, scale=None, text=None, betas=(0.0015, 0.0195)):
    """What their training writes. averages: of the weights of the network, under their names without dots. text:
    weights of the text encoder."""
    start, end = (beta**0.5 for beta in betas)
    state = OrderedDict(betas=(torch.linspace(start, end, 1000, dtype=torch.float64) ** 2).float())
    state["alphas_cumprod"] = (1 - state["betas"].double()).cumprod(0).float()
    state |= {"scale_factor": torch.tensor(scale)} if scale else {}
    state |= {f"model.diffusion_model.{key}": weight for key, weight in unet.items()}
    if averages:
        state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7, dtype=torch.int32)}
        state |= {"model_ema." + f"diffusion_model.{key}".replace(".", ""): w for key, w in averages.items()}
    state |= {f"first_stage_model.{key}": weight for key, weight in stage.items()}
    state |= {f"cond_stage_model.{key}": weight for key, weight in (text or {}).items()}
    state |= {} if classes is None else {"cond_stage_model.embedding.weight": classes}
    return {"epoch": 3, "global_step": 7, "pytorch-lightning_version": "1.4.2", "state_dict": state}
