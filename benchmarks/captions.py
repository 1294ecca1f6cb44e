"""Do samples show what their captions say? 100 cells: ten digits, thin and bold, five samples each.

    python -m benchmarks.captions CKPT [sampler=ddim guidance=classifier_free guidance.scale=2 ...]

The digit is judged by a small classifier that is trained here and has nothing to do with the diffusion model, the
stroke by its measured width. Writes the cells to captions.png. Words are those of `ddpm.load`.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

import ddpm
from benchmarks.mnist_quality import trained
from ddpm.base.image_grid import tile_by_class
from ddpm.base.images import to_uint8
from ddpm.data.sources.described_digits import DIGITS, describe
from ddpm.data.sources.mnist import Mnist
from ddpm.generation.stores.base import save_png

STROKES, SAMPLES = ("thin", "bold"), 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ckpt")
    parser.add_argument("words", nargs="*")
    given = parser.parse_args()
    torch.manual_seed(0)
    real = Mnist().open()
    pixels = torch.from_numpy(np.array(real.pixels))[:, None] / 127.5 - 1
    classifier = trained(pixels[::2], real.labels[::2])
    right = (classifier(pixels[1::2]).argmax(1) == real.labels[1::2]).float().mean()
    prompts = [f"a {stroke} {digit}" for digit in DIGITS for stroke in STROKES for _ in range(SAMPLES)]
    images = ddpm.load(given.ckpt, *given.words).sample(len(prompts), prompt=prompts, batch_size=len(prompts))
    digit = [DIGITS[label] for label in classifier(images).argmax(1).tolist()]
    stroke, _ = describe(images, (2.15, 2.6), (-0.2, 0.05, 0.25))
    as_said = [prompt == f"a {s} {d}" for prompt, s, d in zip(prompts, stroke, digit, strict=True)]
    right_digit = [prompt.endswith(f" {d}") for prompt, d in zip(prompts, digit, strict=True)]
    print(f"classifier: right on {right:.3f} of {len(pixels) // 2} digits that it has not seen")
    print(f"digit and stroke as said: {sum(as_said)} of {len(prompts)}; digit: {sum(right_digit)}")
    kinds = list(dict.fromkeys(prompts))
    grid = tile_by_class(to_uint8(images), [kinds.index(prompt) for prompt in prompts], kinds.__getitem__)
    save_png(Path("captions.png"), grid.numpy())


if __name__ == "__main__":
    main()
