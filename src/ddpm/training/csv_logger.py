"""metrics.csv with one row a step, on disk as soon as the next step begins."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only


class OneRowPerStep(CSVLogger):
    """Lightning's logger makes a row of every call, and holds rows back for up to a hundred steps."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        rows = self.experiment.metrics
        if rows and rows[-1]["step"] == step:
            rows[-1].update(metrics)
            return
        if rows:
            self.save()
        super().log_metrics(dict(metrics), step)
