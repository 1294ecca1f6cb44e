"""A small evaluation, run as one process or one of several: `python ranks.py plain|lightning FOLDER RANK WORLD`.

Each process writes `FOLDER/RANK.json`. The tests load this file too, for its extractor and images.
"""

import json
import sys
from pathlib import Path

import torch

from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.fid import FrechetDistance
from ddpm.metrics.inception_score import InceptionScore

NUM_IMAGES = 33


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

    def __call__(self, pixels):
        out = (pixels.double().flatten(1) @ self.matrix).float()
        return {"pooled": out[:, :6], "logits": out[:, 6:]}


def images(kind, ids):
    """Real and generated images [B, 3, 4, 4] as a function of their numbers."""
    make = torch.Generator().manual_seed({"real": 1, "generated": 2}[kind])
    spread = {"real": 0.5, "generated": 0.4}[kind]
    return (spread * torch.randn(NUM_IMAGES, 3, 4, 4, generator=make))[ids]


def evaluator(**options):
    extractor = Projection()
    scores = [FrechetDistance(extractor.dims["pooled"]), InceptionScore(extractor.dims["logits"])]
    return Evaluator(extractor, scores, **options)


def evaluate(real_ids, fake_ids, batch=5):
    scoring = evaluator()
    for ids in real_ids.split(batch):
        scoring.update_real(images("real", ids), ids)
    for ids in fake_ids.split(batch):
        scoring.update_fake(images("generated", ids), ids)
    return scoring.compute()


def evaluate_in_shares(rank, world):
    """All values of 33 images in unequal shares, of shares of which all but one are empty, and of padded ones."""
    every = torch.arange(NUM_IMAGES)
    share = every[rank::world]
    out = {"shares": evaluate(share, share), "one_rank_has_all": evaluate(share, every if rank == 0 else every[:0])}
    padded = torch.cat([share, every[: -len(share) % 17]])  # what DistributedSampler does to 33 images on 2 ranks
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
