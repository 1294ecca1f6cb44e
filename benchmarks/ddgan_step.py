"""A training step of experiment=ddgan_cifar10 against one of the program of Xiao et al. 2022, at equal shapes.

    git clone https://github.com/NVlabs/denoising-diffusion-gan FOLDER
    python -m benchmarks.ddgan_step --authors FOLDER

Their networks, posteriors, averages and order of passes are theirs, from FOLDER. Their CUDA operators are replaced by
torch's convolutions, the same ones that this project uses, and DistributedDataParallel is left out. Their step gets
random images that are in memory. This project's step is the complete loop of train.py: loader, keyed noise, averages,
check for non-finite values and logs. Batch size 4, 32 x 32 x 3, float32, one thread. A step of one program follows a
step of the other. The times are CPU times of the process, which other work on the machine affects least. R1 is due in
every second step. "spread" has the quartiles of the ratio.
"""

import argparse
import importlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, patch

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from lightning.pytorch import Callback
from torch import Tensor

from benchmarks.interleaved import one_thread
from benchmarks.lightning_loop import CONF
from benchmarks.run import table
from ddpm.config import build

BATCH, WARMUP, R1_EVERY, GAMMA = 4, 2, 2, 0.02
ABSENT = ["torchvision", "torchvision.transforms", "torchvision.datasets", "datasets_prep.lsun"]
ABSENT += ["datasets_prep.stackmnist_data", "datasets_prep.lmdb_datasets"]  # what only their data sets need


def upfirdn2d(x: Tensor, kernel: Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """Zeros between the pixels, a symmetric filter and every `down`-th pixel, by torch's convolutions."""
    channels, side = x.shape[1], kernel.shape[0]
    weights = kernel.expand(channels, 1, -1, -1)
    if up > 1:
        first, last = pad
        sides = {"padding": side - 1 - first, "output_padding": up - 1 + last - first}
        return F.conv_transpose2d(x, weights, stride=up, groups=channels, **sides)
    return F.conv2d(F.pad(x, (*pad, *pad)), weights, stride=down, groups=channels)


def authors_program(folder: Path) -> SimpleNamespace:
    stubs = {"score_sde.op": MagicMock(upfirdn2d=upfirdn2d), **{name: MagicMock() for name in ABSENT}}
    with patch.dict(sys.modules, stubs), patch.object(sys, "path", [str(folder), *sys.path]):
        names = {"train": "train_ddgan", "averages": "EMA", "adversary": "score_sde.models.discriminator"}
        names["generator"] = "score_sde.models.ncsnpp_generator_adagn"
        return SimpleNamespace(**{role: importlib.import_module(name) for role, name in names.items()})


class AuthorsStep:
    """Both turns of their training, with the settings of their README for CIFAR-10."""

    def __init__(self, folder: Path) -> None:
        program = authors_program(folder)
        sizes = {"image_size": 32, "num_channels": 3, "num_channels_dae": 128, "ch_mult": [1, 2, 2, 2], "n_mlp": 4}
        sizes |= {"num_res_blocks": 2, "attn_resolutions": (16,), "nz": 100, "z_emb_dim": 256, "dropout": 0.0}
        kinds = {"resblock_type": "biggan", "progressive": "none", "progressive_input": "residual", "fir": True}
        kinds |= {"fir_kernel": [1, 3, 3, 1], "progressive_combine": "sum", "embedding_type": "positional"}
        flags = {"conditional": True, "skip_rescale": True, "resamp_with_conv": True, "centered": True}
        times = {"num_timesteps": 4, "beta_min": 0.1, "beta_max": 20.0, "use_geometric": False, "not_use_tanh": False}
        args = SimpleNamespace(**sizes, **kinds, **flags, **times)
        self.generator = program.generator.NCSNpp(args)
        self.adversary = program.adversary.Discriminator_small(nc=6, ngf=64, t_emb_dim=256, act=torch.nn.LeakyReLU(0.2))
        self.adversary_optimizer = torch.optim.Adam(self.adversary.parameters(), lr=1.25e-4, betas=(0.5, 0.9))
        optimizer = torch.optim.Adam(self.generator.parameters(), lr=1.6e-4, betas=(0.5, 0.9))
        self.optimizer = program.averages.EMA(optimizer, ema_decay=0.9999)
        forward, posterior = (getattr(program.train, f"{name}_Coefficients") for name in ("Diffusion", "Posterior"))
        forward, posterior = forward(args, torch.device("cpu")), posterior(args, torch.device("cpu"))
        self.pair = lambda x0, t: program.train.q_sample_pairs(forward, x0, t)
        self.posterior = lambda x0, x_t, t: program.train.sample_posterior(posterior, x0, x_t, t)
        self.x0 = torch.rand(BATCH, 3, 32, 32) * 2 - 1

    def fake_logit(self, x_t: Tensor, t: Tensor) -> Tensor:
        x0 = self.generator(x_t, t, torch.randn(BATCH, 100))
        return self.adversary(self.posterior(x0, x_t, t), t, x_t)

    def __call__(self, step: int) -> None:
        self.adversary.requires_grad_(True)
        self.adversary.zero_grad()
        t = torch.randint(4, (BATCH,))
        x_s, x_t = self.pair(self.x0, t)
        logit = self.adversary(x_s.requires_grad_(), t, x_t)
        F.softplus(-logit).mean().backward(retain_graph=True)
        if step % R1_EVERY == 0:
            (gradient,) = torch.autograd.grad(logit.sum(), x_s, create_graph=True)
            (GAMMA / 2 * gradient.flatten(1).norm(dim=1).square().mean()).backward()
        F.softplus(self.fake_logit(x_t, t)).mean().backward()  # also through the generator
        self.adversary_optimizer.step()

        self.adversary.requires_grad_(False)
        self.generator.zero_grad()
        t = torch.randint(4, (BATCH,))
        F.softplus(-self.fake_logit(self.pair(self.x0, t)[1], t)).mean().backward()
        self.optimizer.step()


class Interleave(Callback):
    """Runs their step after each of ours. seconds: of both, for each step."""

    def __init__(self, theirs: Callable[[int], None]) -> None:
        self.theirs, self.seconds = theirs, list[tuple[float, float]]()
        self.mark = time.process_time()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        middle = time.process_time()
        self.theirs(batch_idx)
        start, self.mark = self.mark, time.process_time()
        self.seconds.append((middle - start, self.mark - middle))


def rows(folder: Path, rounds: int) -> list[dict[str, Any]]:
    GlobalHydra.instance().clear()
    with one_thread(), tempfile.TemporaryDirectory() as run:
        steps = WARMUP + R1_EVERY * rounds + 1  # the last one writes a checkpoint and is left out
        words = ["experiment=ddgan_cifar10", "data=stacked_mnist", "data.size=32", "data.resize=bilinear"]
        words += [f"data.batch_size={BATCH}", f"loss.r1_every={R1_EVERY}", f"trainer.max_steps={steps}"]
        words += [f"run_dir={run}", "trainer=cpu", "logger=csv", "~callbacks.samples", "~callbacks.denoising"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("train", words)
        module, trainer, theirs = build.module(config), build.trainer(config), AuthorsStep(folder)
        trainer.callbacks.append(interleaved := Interleave(theirs))
        trainer.fit(module, build.data(config))
    for own, other in ((module.network, theirs.generator), (module.adversary, theirs.adversary)):
        sizes = [sum(p.numel() for p in network.parameters()) for network in (own, other)]
        assert sizes[0] == sizes[1], sizes
        print(f"{type(own).__name__} and {type(other).__name__}: {sizes[0]:,} parameters each")
    result = []
    for title, first in (("with R1", 0), ("without R1", 1)):
        seconds = interleaved.seconds[WARMUP + first : -1 : R1_EVERY]
        ratios = [own / other for own, other in seconds]
        low, middle, high = statistics.quantiles(ratios, n=4)
        ours, authors = (f"{statistics.median(each):.2f} s" for each in zip(*seconds, strict=True))
        result.append({"step": title, "this project": ours, "authors": authors, "ratio": f"{middle:.2f}"})
        result[-1] |= {"spread": f"{low:.2f} to {high:.2f}", "steps": len(seconds)}
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--authors", type=Path, required=True, help="a checkout of NVlabs/denoising-diffusion-gan")
    parser.add_argument("--rounds", type=int, default=8, help="steps of each kind and program, 2 or more")
    arguments = parser.parse_args()
    if not (arguments.authors / "train_ddgan.py").is_file():
        parser.error(f"--authors={arguments.authors} has no train_ddgan.py; clone NVlabs/denoising-diffusion-gan there")
    if arguments.rounds < 2:
        parser.error(f"--rounds={arguments.rounds} has no spread; give 2 or more")
    print(table(rows(arguments.authors, arguments.rounds)))
