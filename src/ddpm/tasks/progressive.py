"""The predicted x0 over time, and samples that share one x_t (Ho et al. 2020, figures 6 and 7)."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.diffusion.exact.inversion import draws_noise
from ddpm.diffusion.samplers.base import State
from ddpm.tasks.base import Model, Outcome
from ddpm.tasks.sheet import sheet


@dataclass(frozen=True)
class Progressive:
    """num_samples: rows of the strips. num_times: columns of the strips, spread over the sampler's steps.

    times: times at which `num_completions` samples share the x_t of sample 0; None: 7/8, 3/4, 1/2, 1/4 and 1/8 of T.
    The nearest times of the sampler are used. num_completions = 0 skips this picture.
    """

    num_samples: check.PositiveInt
    num_times: Annotated[int, check.integers(2)]
    times: list[int] | None
    num_completions: check.NonNegativeInt

    def __post_init__(self) -> None:
        check.fields(self, "task.")
        if self.times is not None and not self.num_completions:
            raise ValueError("task.times has no effect with task.num_completions=0; leave one of them out")

    def __call__(self, model: Model) -> Outcome:
        visited = model.sampler.times(model.T)
        shared = self.shared_times(model, visited)
        columns = torch.linspace(1, len(visited) - 1, min(self.num_times, len(visited) - 1)).round().int().tolist()
        x0, x_t = states_at(model, self.num_samples, {visited[i] for i in columns}, set(shared))
        outcome = strips(x0, columns, visited)
        if shared:
            outputs = torch.stack([self.complete(model, x_t[t], t) for t in shared])
            seen = model.decode(torch.stack([x_t[t] for t in shared]))
            outcome.pictures["completions"] = sheet(
                [[x, *row] for x, row in zip(seen, outputs, strict=True)],
                rows=[f"t = {t}" for t in shared],
                columns=["shared x_t", *map(str, range(self.num_completions))],
                title=f"samples that share x_t, with different noise below t; T = {model.T}",
            )
            outcome.arrays.update(shared_x_t=seen, completions=outputs)
            outcome.numbers["shared_times"] = shared
        return outcome

    def shared_times(self, model: Model, visited: list[int]) -> list[int]:
        """The falling times at which x_t is shared; empty without completions. Raises ValueError."""
        if not self.num_completions:
            return []
        if not draws_noise(model.sampler):
            raise ValueError(
                f"{model.sampler.describe()} adds no noise, so all completions of one x_t are the same; "
                "add sampler=ancestral, or task.num_completions=0"
            )
        wanted = self.times or [max(1, model.T * part // 8) for part in (7, 6, 4, 2, 1)]
        for t in wanted:
            check.integer("task.times", t, low=1, high=model.T)

        def nearest(t: int) -> int:
            return min(visited[:-1], key=lambda visit: abs(visit - t))

        return sorted({nearest(t) for t in wanted}, reverse=True)

    def complete(self, model: Model, x_t: Tensor, t: int) -> Tensor:
        """Samples `[num_completions, C, H, W]` from one x_t `[C, H, W]`."""
        ids = torch.arange(self.num_completions, device=model.device)
        return model.sampled(x_t.to(model.device).expand(len(ids), *x_t.shape), ids, t)


def states_at(model: Model, num: int, shown: set[int], shared: set[int]) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Sample 0..num-1 and collect two mappings: from the times `shown` to the decoded prediction of x0,
    `[num, C, H, W]`, that led to this time; and from the times `shared` to x_t `[C, H, W]` of sample 0."""
    ids = torch.arange(num, device=model.device)
    x_T = model.prior(ids)
    x0: dict[int, list[Tensor]] = {t: [] for t in shown}
    x_t = {model.sampler.times(model.T)[0]: x_T[0].cpu()}

    def watch(rows: Tensor, state: State) -> None:
        if state.t in shown:
            x0[state.t].append(model.decode(state.prediction.x0))
        if state.t in shared and rows[0] == 0:
            x_t[state.t] = state.x_t[0].cpu()

    model.sampled(x_T, ids, model.T, watch=watch)
    return {t: torch.cat(parts) for t, parts in x0.items()}, x_t


def strips(x0: dict[int, Tensor], columns: list[int], visited: list[int]) -> Outcome:
    """Draw the strips. x0: predictions by the time stepped to. columns: indices of these times in `visited`."""
    seen_from = [visited[i - 1] for i in columns]
    images = torch.stack([x0[visited[i]] for i in columns], dim=1)  # [samples, columns, C, H, W]
    rows, heads = [f"sample {number}" for number in range(len(images))], [f"t = {t}" for t in seen_from]
    drawn = sheet(list(images), rows, heads, "x0 predicted from x_t")
    return Outcome({"progressive": drawn}, {"predicted_x0": images}, {"times": seen_from})
