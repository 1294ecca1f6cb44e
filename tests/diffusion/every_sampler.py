"""One of each sampler, grid and schedule, for tests of what all of them must do."""

import functools
import math

from ddpm.diffusion.samplers import published_spacing, timestep_spacing
from ddpm.diffusion.samplers.ancestral import Ancestral
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.samplers.dpm_solver import DPMSolver, DPMSolver3M, PublishedDPMSolver3M, SDEDPMSolver
from ddpm.diffusion.samplers.edm import Euler, Heun
from ddpm.diffusion.samplers.langevin import Langevin
from ddpm.diffusion.samplers.pndm import PLMS, PNDM
from ddpm.diffusion.samplers.unipc import UniPC
from ddpm.diffusion.schedules.betas import constant, linear
from ddpm.diffusion.schedules.curves import cosine, jsd, sigmoid
from ddpm.diffusion.variance import FixedLarge, FixedSmall

EDM = {"churn_low": 0.0, "churn_high": math.inf, "noise_scale": 1.0}
WITHOUT_NOISE = {
    "ddim": (DDIM, {"eta": 0.0}),
    "euler": (Euler, {"churn": 0.0, **EDM}),
    "heun": (Heun, {"churn": 0.0, **EDM, "euler_above": 100.0}),
    "dpm_solver": (DPMSolver, {}),
    "dpm_solver_3m": (DPMSolver3M, {"largest_growth": 1.25, "largest_step": 0.75}),
    "dpm_solver_3m_published": (PublishedDPMSolver3M, {"lower_order_final": True}),
    "unipc_1": (UniPC, {"predictor_order": 1}),
    "unipc_2": (UniPC, {"predictor_order": 2}),
    "unipc_3": (UniPC, {"predictor_order": 3, "lower_order_final": True}),
    "pndm": (PNDM, {"euler_above": 10.0}),
    "plms": (PLMS, {}),
}
AFFINE_WITH_NOISE = {
    "ancestral_small": (Ancestral, {"variance": FixedSmall()}),
    "ancestral_large": (Ancestral, {"variance": FixedLarge()}),
    "ddim_eta_1": (DDIM, {"eta": 1.0}),
    "sde_dpm_solver": (SDEDPMSolver, {}),
    "heun_churn": (Heun, {"churn": 10.0, **EDM, "euler_above": 100.0}),
}
WITH_NOISE = {
    **AFFINE_WITH_NOISE,
    "euler_churn": (Euler, {"churn": 10.0, **EDM}),
    "langevin": (Langevin, {"variance": FixedSmall(), "corrections": 2, "snr": 0.16}),
}
ALL = {**WITHOUT_NOISE, **WITH_NOISE}
SCHEDULES = {
    "linear": lambda T: linear(T, 1e-4, 0.02, rescale=T > 20),
    "cosine": lambda T: cosine(T, 0.008, 0.999),
    "sigmoid": lambda T: sigmoid(T, -3, 3, 1, 0.999),
    "constant": lambda T: constant(T, 0.05, rescale=False),
    "jsd": jsd,  # nothing is left of the signal at T
}
GRIDS = {
    "uniform": timestep_spacing.uniform,
    "trailing": timestep_spacing.trailing,
    "quadratic": timestep_spacing.quadratic,
    "log_snr": timestep_spacing.log_snr,
    "rho": functools.partial(timestep_spacing.rho, rho=7),
}
PUBLISHED = {
    "leading": published_spacing.leading,
    "leading_1": functools.partial(published_spacing.leading, offset=1),
    "strided": published_spacing.strided,
    "strided_1": functools.partial(published_spacing.strided, offset=1),
    "linspace": published_spacing.linspace,
    "ddim_quadratic": published_spacing.ddim_quadratic,
    "respaced": published_spacing.respaced,
    "without_last": functools.partial(published_spacing.without_last, of=published_spacing.linspace),
    "without_last_leading": functools.partial(published_spacing.without_last, of=published_spacing.leading),
}
"""They may begin below T, and two of them make another number of steps."""


def made(name, process, steps, times=timestep_spacing.uniform):
    kind, settings = ALL[name]
    return kind(process=process, timestep_spacing=times, steps=steps, **settings)
