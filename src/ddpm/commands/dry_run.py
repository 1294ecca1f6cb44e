"""dry_run=true: describe a training run and its cost without running it."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ddpm.base.memory import available_bytes, require_memory
from ddpm.config import build
from ddpm.data.datamodule import ImageDataModule
from ddpm.data.order import micro_batch_size
from ddpm.data.sources.assumed import Assumed
from ddpm.model.diffusion_model import DiffusionModel
from ddpm.model.latent_codec import LatentCodec
from ddpm.training.module import DiffusionModule
from ddpm.training.turn import describe_sizes

ASSUMED_IMAGES, ASSUMED_CLASSES = 10_000, 10


def data_or_assumed(config: DictConfig) -> ImageDataModule:
    """The data module of a dry run. If its images are not there, print what is assumed of them instead."""
    missing = [key for key in sorted(OmegaConf.missing_keys(config.data)) if key.startswith("data.source.")]
    for key in missing:
        OmegaConf.update(config, key, "not given")
    data = build.data(config)
    try:
        data.source.open()
    except (ValueError, OSError) as error:
        why = f"{missing[0]} is not given" if missing else str(error).splitlines()[0]
        classes = config.data.num_classes or ASSUMED_CLASSES
        data.source, data.download = Assumed(ASSUMED_IMAGES, data.image_shape, classes), False
        said = f"{ASSUMED_IMAGES:,} images of {' x '.join(map(str, data.image_shape))} in {classes} classes"
        print(f"assumed: {said}, because {why}")
    return data


def describe_run(config: DictConfig, module: DiffusionModule, data: ImageDataModule, trainer: Trainer) -> str:
    """Text with the configuration as a tree, the parameters, FLOPs, memory and the output folder."""
    micro_batch = micro_batch_size(data.batch_size, trainer.world_size, trainer.accumulate_grad_batches)
    codec = module.model.codec
    if isinstance(codec, LatentCodec) and not codec.is_fitted:
        codec.fit({"scale": 1.0, "shift": [0.0] * codec.network.z_channels})  # any scale costs the same
    flops, activations, _ = cost_of_one_image(module.model)
    trained, averaged = sum(turn.num_parameters for turn in module.turns), module.own_turn.num_parameters
    numbers = 4 * trained + len(module.averages.decays) * averaged  # weights, gradients, two moments of Adam; averages
    megabytes = (4 * numbers + activations * micro_batch) / 2**20
    lines = {
        "parameters": describe_sizes(module.turns),
        "FLOPs per image": f"{flops / 1e9:.2f} G forward, about {3 * flops / 1e9:.2f} G for a training step",
        "memory per device": f"about {megabytes:,.0f} MiB for {micro_batch} images at float32",
        "devices": f"{trainer.world_size} x {trainer.strategy.root_device.type}, precision {trainer.precision}",
        "images per step": f"{data.batch_size} = {micro_batch} x {trainer.world_size} devices"
        f" x {trainer.accumulate_grad_batches} accumulated",
        "output folder": config.run_dir,
    }
    shown = OmegaConf.masked_copy(config, [*{*config} - {"logger", "callbacks"}])  # a dry run has none
    return tree_text(shown) + "\n".join(f"{name:18} {value}" for name, value in lines.items())


class Cost(NamedTuple):
    """FLOPs of a forward pass, bytes kept for the backward pass, and those of the largest tensor among them."""

    flops: int
    activations: int
    largest: int


def cost_of_one_image(model: DiffusionModel) -> Cost:
    """The cost of one image; uses fake tensors only."""
    x = torch.zeros(1, *model.latent_shape)
    condition = model.condition  # a class label does not change the cost, so it is left out
    _, *size = model.image_shape
    example = {"image": torch.zeros(1, *model.image_shape), "label_map": torch.zeros(1, *size, dtype=torch.uint8)}
    cond = condition.of(example) if condition.needs_images else {}
    cond |= model.sampler.step_inputs(None, model.sample_rng.at(0, torch.zeros(1, dtype=torch.int64)))
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter, saved_bytes() as saved:
        model.network.forward(x, torch.zeros(1, dtype=torch.int64), **cond)  # `forward` avoids the compiled call
    return Cost(counter.get_total_flops(), sum(saved), max(saved, default=0))


def require_memory_for_images(model: DiffusionModel, batch_size: int, num_held: int = 0) -> None:
    """Raise ValueError if a batch of images does not fit in memory. Computed for large ones only; allocates none.

    A layer holds its input and its output, so two of the largest feature maps are a lower bound. num_held: number of
    images that are held at once, as by a task.
    """
    of_size = f"images of {' x '.join(map(str, model.image_shape))}"
    require_memory(4 * num_held * math.prod(model.image_shape), f"holding {num_held:,} {of_size} (all of the task)")
    own = 4 * batch_size * math.prod(model.latent_shape)
    if model.device.type != "cpu" or 100 * own < available_bytes():
        return
    what = f"a batch of {batch_size} {of_size} (batch_size, data.size)"
    require_memory(4 * own, what)  # x_t, the network's output, x0 and the next x_t
    require_memory(2 * batch_size * cost_of_one_image(model).largest, what)


@contextmanager
def saved_bytes() -> Iterator[list[int]]:
    """Collect the sizes in bytes of the tensors that autograd saves within this context, without parameters."""
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield sizes


def tree_text(config: DictConfig) -> str:
    tree = Tree("configuration")
    for name, value in OmegaConf.to_container(config, resolve=True).items():
        add_node(tree, str(name), value)
    console = Console(file=io.StringIO(), width=120)
    console.print(tree)
    return console.file.getvalue()


def add_node(tree: Tree, name: str, value: object) -> None:
    if isinstance(value, dict) and value:
        branch = tree.add(escape(name))
        for key, below in value.items():
            add_node(branch, str(key), below)
    else:
        tree.add(escape(f"{name}: {value}"))
