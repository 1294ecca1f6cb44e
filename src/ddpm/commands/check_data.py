"""Look at a data set before training: python -m ddpm check-data data=folder data.source.root=FOLDER"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
import torch
import torch.nn.functional as F
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor

from ddpm.base import check
from ddpm.base.image_grid import POINT, annotate, enlarge, tile_images
from ddpm.base.plots import describe_place
from ddpm.base.program import CONF
from ddpm.base.progress import ProgressDisplay
from ddpm.commands import cli
from ddpm.commands.defaults import following_options
from ddpm.config import build
from ddpm.config.compose import compose
from ddpm.data.contents import count_classes, describe_classes, describe_counts
from ddpm.data.datamodule import ImageDataModule
from ddpm.data.labels import explain_no_labels, unlabelled
from ddpm.data.order import choose_subset
from ddpm.data.problems import list_problems, usable
from ddpm.data.sources.base import Images, captions_of, explain_no_captions
from ddpm.data.survey import Survey, survey
from ddpm.generation.stores.base import save_png
from ddpm.runs.console import quiet_libraries

MOST_ROWS, MOST_CLASSES, MAX_NAME = 10, 100, 20
CELL, PAGE_WIDTH, MAX_POINTS = 128, 1600, 5000
"""Pixels of the smaller side of an image in the picture, and of the picture."""
CHANNELS = {1: ["grey"], 3: ["red", "green", "blue"]}
POINTS = "does not apply: points in the plane, on a grid of 8 bits"
NO_FILES = "does not apply: the images are no files of their own"


def run_check_data(config: DictConfig) -> None:
    quiet_libraries()
    if config.out and not str(config.out).endswith(".png"):
        check.fail("out", config.out, "the name of a .png")
    num_shown = check.positive_int("num_shown", config.num_shown)
    data = build.data(as_trained(HydraConfig.get().overrides.task))
    data.prepare_data()
    sources = {"training": data.source, **({"test": data.test_source} if data.test_source else {})}
    opened = {name: data.open_images(source) for name, source in sources.items()}
    surveys = {name: take_survey(data, images, name) for name, images in opened.items()}
    for name, images in opened.items():
        print(f"data={data.name}, {name} images")
        for key, text in describe_survey(data, images, surveys[name]).items():
            print_entry(key, text)
    if len(surveys) > 1:
        known = {digest.tobytes() for digest in surveys["training"].digests.numpy()}
        num_known = sum(digest.tobytes() in known for digest in surveys["test"].digests.numpy())
        print_entry("in both", f"{num_known:,} test images have exactly the pixels of a training image")
    num = {name: len(images) - len(surveys[name].problems) for name, images in opened.items()}
    num_train = data.num_trained_on(num["training"])
    print_entry("splits", f"train {num_train:,}, val {data.num_val:,}, test {num.get('test', 0):,}")
    if data.no_test_split:
        print_entry("no test", data.no_test_split)
    if num["training"]:
        out = Path(config.out or f"data_checks/{data.name}.png")
        place = describe_place(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        save_png(out, draw_images(data, opened["training"], surveys["training"], num_shown).numpy())
        print_entry("picture", place)
    faults = [fault for name in opened for fault in faults_of(data, opened[name], surveys[name])]
    if not faults and num_train < data.batch_size:
        faults = [f"{num_train} images for training are fewer than data.batch_size={data.batch_size}"]
    if faults:
        raise ValueError(f"training with data={data.name} would stop:\n" + "\n".join(faults))
    print(f"data={data.name}: training can start")


def as_trained(words: Sequence[str]) -> DictConfig:
    """The configuration of a training with the same words, whose experiment may change the settings of the data."""
    shared = [word for word in words if not word.startswith(("num_shown=", "out="))]
    return compose(CONF, "train", following_options(shared))


def print_entry(key: str, text: str) -> None:
    for number, line in enumerate(text.splitlines()):
        print(f"  {'' if number else key:13} {line}")


def take_survey(data: ImageDataModule, images: Images, name: str) -> Survey:
    with ProgressDisplay(f"{name} image", len(images)) as display:

        def show(done: int) -> None:
            if display.is_due(done) and done < len(images):
                display.show(done, f"{display.rate(done):.0f} images/s")

        return survey(data.decoder(images), data.channels, data.num_workers, show)


def describe_survey(data: ImageDataModule, images: Images, found: Survey) -> dict[str, str]:
    """Lines of text by what they are about."""
    is_points, has_files = data.image_shape == POINT, any(mode != "array" for _, mode, _ in found.stored)
    sizes, modes, bits = Counter(), Counter(), Counter()
    for ((height, width), mode, depth), num in found.stored.items():
        sizes[f"{height} x {width}"] += num
        modes[mode] += num
        bits[depth] += num
    missing, passed_over, groups = unlabelled(images), getattr(images, "passed_over", None), found.duplicates()
    equal = [" = ".join(map(images.name, numbers[:3])) for numbers in groups[:MOST_ROWS]]
    copies = f"{sum(map(len, groups)) - len(groups):,} images have exactly the pixels of an earlier one"
    return {
        "images": f"{len(images):,}",
        "sizes": POINTS if is_points else f"height x width\n{table(sizes)}",
        "modes": table(modes) if has_files else NO_FILES,
        "bit depth": table(bits) if has_files else NO_FILES,
        "classes": describe_classes(images, MOST_CLASSES) or f"no labels{explain_no_labels(images)}",
        "captions": describe_captions(images),
        **({"without label": list_problems(f"{len(missing):,}", missing)} if 0 < len(missing) < len(images) else {}),
        "duplicates": POINTS if is_points else "\n".join([copies, *equal]),
        "not usable": list_problems(f"{len(found.problems):,}", found.problems) if found.problems else "0",
        "passed over": NO_FILES if passed_over is None else describe_counts(passed_over) if passed_over else "0 files",
        "values": describe_values(found, ["x and y"] if is_points else CHANNELS[data.channels]),
    }


def describe_captions(images: Images) -> str:
    """As "40 images with a text, 2 without, for example 'a cat'"."""
    captions = captions_of(images) or []
    texts = [*filter(None, captions)]
    if not texts:
        return f"no texts{explain_no_captions(images)}"
    several = getattr(images, "num_with_several", 0)
    first = f", the first of several for {several:,}" if several else ""
    without = f"{len(captions) - len(texts):,} without"
    return f"{len(texts):,} images with a text, {without}{first}, for example {texts[0]!r:.80}"


def table(counts: Counter[Any]) -> str:
    """The most frequent, one in each line."""
    more = [f"{len(counts) - MOST_ROWS:,} others"] if len(counts) > MOST_ROWS else []
    return "\n".join([*(f"{key}: {num:,}" for key, num in counts.most_common(MOST_ROWS)), *more])


def describe_values(found: Survey, channels: list[str]) -> str:
    if not found.levels.any():
        return "no image can be used"
    rows = zip(channels, *(each.tolist() for each in found.moments()), strict=True)
    lines = (f"{name}: {low:.3f} to {high:.3f}, mean {mean:.4f}, std {std:.4f}" for name, low, high, mean, std in rows)
    return "\n".join(["in [-1, 1], as a network gets them", *lines])


def faults_of(data: ImageDataModule, images: Images, found: Survey) -> Iterator[str]:
    """The errors that a training would end with."""
    for each in (
        lambda: data.check_images(images),
        lambda: count_classes(images.labels, images.class_names, data.name),
        lambda: usable(len(images), found.problems, data.on_broken),
    ):
        try:
            each()
        except ValueError as error:
            yield str(error)


def draw_images(data: ImageDataModule, images: Images, found: Survey, num_shown: int) -> Tensor:
    """Some usable images with their names and classes, uint8 `[H, W, 3]`; points lie in one plane."""
    sound = torch.ones(len(images), dtype=torch.bool)
    sound[[problem.number for problem in found.problems]] = False
    is_points, numbers = data.image_shape == POINT, sound.nonzero()[:, 0]
    numbers = numbers[choose_subset(len(numbers), min(len(numbers), MAX_POINTS if is_points else num_shown))]
    pixels = data.decoder(images).decoded(numbers.tolist())[0][:, : data.channels]
    if is_points:
        return annotate(tile_images(pixels), f"{len(numbers):,} points of {data.name}")
    cells = [
        annotate(annotate(tile_images(each[None]), class_of(images, number)), short(images.name(number)))
        for number, each in zip(numbers.tolist(), enlarge(pixels, CELL), strict=True)
    ]
    width = max(cell.shape[1] for cell in cells)
    page = [F.pad(cell, (0, 0, 0, width - cell.shape[1]), value=255).permute(2, 0, 1) for cell in cells]
    return tile_images(torch.stack(page), max(1, PAGE_WIDTH // width))


def short(name: str) -> str:
    """The last part of a path, without its middle if it is long."""
    last, half = name.rpartition("/")[2], MAX_NAME // 2 - 1
    return last if len(last) <= MAX_NAME else f"{last[:half]}...{last[-half:]}"


def class_of(images: Images, number: int) -> str:
    label = int(images.labels[number])
    return " " if label < 0 else short(str(dict(enumerate(images.class_names)).get(label, label)))


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="check_data")
def main(config: DictConfig) -> None:
    cli.run_job(run_check_data, config)


if __name__ == "__main__":
    cli.run_command(main, CONF, "check_data")
