"""The exact probability-flow ODE of an oracle: truth for samplers without noise, by an adaptive solver."""

import math

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from ddpm.diffusion.exact.oracle import Oracle
from ddpm.diffusion.schedules.base import NoiseSchedule

TOLERANCE = 1e-10


def exact_flow(oracle: Oracle, schedule: NoiseSchedule, x_t: Tensor, t: int, s: int) -> Tensor:
    """Where the flow leads from x_t, float64 `[B, *shape]`, to time s >= 1.

    In y = x / alpha and u = log(sigma / alpha) it is dy/du = y - x0, whatever the schedule; Dormand and Prince's method
    of eighth order.
    """
    start, end = (-schedule.half_log_snr(time) for time in (t, s))
    if not math.isfinite(start):
        raise ValueError(
            "metric=sampler_error needs a schedule with some signal left at T, from which a flow can start"
        )

    def slope(u: float, flat: np.ndarray) -> np.ndarray:
        y = torch.from_numpy(flat).view_as(x_t)
        return (y - oracle.x0(y, 1.0, math.exp(u))).flatten().numpy()

    y = (x_t / schedule.alpha(t)).flatten().numpy()
    found = solve_ivp(slope, (start, end), y, method="DOP853", rtol=TOLERANCE, atol=TOLERANCE, t_eval=[end])
    return torch.from_numpy(found.y[:, -1]).view_as(x_t) * schedule.alpha(s)
