"""Lightning's counts of batches and epochs, adjusted so that a run resumes at the right position."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info


def batches(trainer: Trainer) -> dict[str, int]:
    """How the images of a step are divided into batches."""
    now = {"batch_size": trainer.datamodule.batch_size, "accumulation": trainer.accumulate_grad_batches}
    return now | {"world_size": trainer.world_size}


def normalize_counts(loops: dict[str, Any]) -> dict[str, Any]:
    """The counts as in a run that was never resumed. After a resume at the end of an epoch, Lightning's own are too low
    by one epoch, and a second resume would mistake the middle of an epoch for its beginning."""
    for counts in loops["epoch_progress"].values():
        counts["ready"] = counts["started"] = counts["processed"] + 1
        counts["completed"] = counts["processed"]
    validation = loops["epoch_loop.val_loop.batch_progress"]
    for name in ("total", "current"):
        validation[name] = dict.fromkeys(validation[name], 0)
    return loops


def respread(checkpoint: dict[str, Any], now: dict[str, int], num_train: int) -> None:
    """Convert the count of micro-batches in this epoch if the images of a step are now divided differently.

    now: the return value of `batches`. num_train: images per epoch.
    """
    before = checkpoint["batches"]
    if before["world_size"] != now["world_size"]:
        change = f"{before['world_size']} -> {now['world_size']} processes"
        rank_zero_info(f"changed on resuming: {change}; batches stay the same, but random numbers of dropout change")
    if all(before[name] == now[name] for name in ("batch_size", "accumulation")):
        return
    images = checkpoint["ImageDataModule"]["train_loader"]["images"]  # 0 at the end of an epoch
    length = num_train // now["batch_size"] * now["accumulation"]
    done = min(-(-images // now["batch_size"]) * now["accumulation"], length) if images else length
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    moved = done - progress["current"]["ready"]
    for counts in (progress["current"], progress["total"]):
        for name in counts:
            counts[name] += moved
    progress["is_last_batch"] = done == length
