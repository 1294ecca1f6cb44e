"""A small evaluation, run as one process or one of several: `python ranks.py plain|lightning FOLDER RANK WORLD`.

Each process writes `FOLDER/RANK.json`. The tests load this file too, for its extractor and images.
"""

import json
import sys
from pathlib import Path

import torch

from ddpm.metrics.cas import ClassificationAccuracyScore
from ddpm.metrics.class_accuracy import ClassAccuracy
from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.fid import FrechetDistance
from ddpm.metrics.inception_score import InceptionScore
from ddpm.metrics.kid import KernelDistance
from ddpm.metrics.memorization import Memorization
from ddpm.metrics.per_class import PerClass
from ddpm.metrics.prdc import ClassCoverage, PrecisionRecall

NUM_IMAGES = 33
EVERY = torch.arange(NUM_IMAGES)


class Projection:
    """A random linear map of the pixels as an extractor; float64 inside, so that batches do not change its features."""

    dims = {"pooled": 6, "logits": 5}  # noqa: RUF012
    preprocessing = "uint8"
    name = "projection"
    weights_hash = "0" * 64

    def __init__(self):
        self.matrix = torch.randn(3 * 4 * 4, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 300

    def to(self, device):
        return self

    def __call__(self, pixels, layers):
        out = (pixels.double().flatten(1) @ self.matrix).float()
        out = {"pooled": out[:, :6], "logits": out[:, 6:]}
        return {layer: out[layer] for layer in layers}


def images(kind, ids):
    """Real and generated images [B, 3, 4, 4] as a function of their numbers."""
    make = torch.Generator().manual_seed({"real": 1, "generated": 2}[kind])
    spread = {"real": 0.5, "generated": 0.4}[kind]
    return (spread * torch.randn(NUM_IMAGES, 3, 4, 4, generator=make))[ids]


def evaluator(scores=None, **options):
    return Evaluator(Projection(), scores or [FrechetDistance(), InceptionScore()], **options)


def shown(scores=None, real=EVERY, fake=EVERY, batch=NUM_IMAGES):
    """An evaluator that was given the images of these numbers, of five classes in turn."""
    scoring = evaluator(scores)
    for ids in real.split(batch) if scoring.needs_real else ():
        scoring.update_real(images("real", ids), ids, ids % 5)
    for ids in fake.split(batch):
        scoring.update_fake(images("generated", ids), ids, ids % 5)
    return scoring


def every_score():
    return [FrechetDistance(), InceptionScore(), KernelDistance(), PrecisionRecall(), ClassCoverage(), Memorization()]


def class_scores():
    by_class = [PerClass(FrechetDistance(num_resamples=4)), PerClass(PrecisionRecall())]
    return [*by_class, ClassAccuracy(), ClassificationAccuracyScore(num_folds=2)]


def evaluate(real_ids, fake_ids, batch=5, scores=None):
    """Values and error bars in one mapping."""
    found = shown(scores, real_ids, fake_ids, batch).compute()
    errors = {f"{name}_error": estimate.error for name, estimate in found.items() if estimate.error is not None}
    return {name: estimate.value for name, estimate in found.items()} | errors


def evaluate_in_shares(rank, world):
    """All values of 33 images in unequal shares, of shares of which all but one are empty, and of padded ones."""
    share = EVERY[rank::world]
    alone = EVERY if rank == 0 else EVERY[:0]
    out = {
        "classes": evaluate(share, alone, scores=class_scores()),
        "shares": evaluate(share, share, scores=every_score()),
        "one_rank_has_all": evaluate(share, alone, scores=every_score()),
    }
    padded = torch.cat([share, EVERY[: -len(share) % 17]])  # what DistributedSampler does to 33 images on 2 ranks
    try:
        evaluate(share, padded)
    except ValueError as error:
        out["padded"] = str(error)
    return out


def plain(folder, rank, world):
    start = f"file://{Path(folder).absolute()}/start"
    torch.distributed.init_process_group("gloo", init_method=start, rank=rank, world_size=world)
    Path(folder, f"{rank}.json").write_text(json.dumps(evaluate_in_shares(rank, world)))
    torch.distributed.destroy_process_group()


def lightning(folder, rank, world):
    from lightning.pytorch import LightningModule, Trainer

    class Evaluation(LightningModule):
        def predict_step(self, batch, batch_index):
            return None

        def on_predict_end(self):
            out = evaluate_in_shares(self.global_rank, self.trainer.world_size)
            Path(folder, f"{self.global_rank}.json").write_text(json.dumps(out))

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", strategy="ddp", devices=world, default_root_dir=folder, **quiet)
    trainer.predict(Evaluation(), torch.utils.data.DataLoader(torch.zeros(world, 1)), return_predictions=False)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    mode, folder, rank, world = sys.argv[1:]
    {"plain": plain, "lightning": lightning}[mode](folder, int(rank), int(world))
