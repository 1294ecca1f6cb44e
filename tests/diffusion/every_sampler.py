"""One of each sampler, grid and schedule, for tests of what all of them must do."""

import functools
import math

from ddpm.diffusion.samplers import timestep_spacing
from ddpm.diffusion.samplers.ancestral import Ancestral
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.samplers.dpm_solver import DPMSolver, DPMSolver3M, SDEDPMSolver
from ddpm.diffusion.samplers.edm import Euler, Heun
from ddpm.diffusion.samplers.langevin import Langevin
from ddpm.diffusion.samplers.pndm import PNDM
from ddpm.diffusion.samplers.unipc import UniPC
from ddpm.diffusion.schedules.betas import constant, linear
from ddpm.diffusion.schedules.curves import cosine, jsd, sigmoid
from ddpm.diffusion.variance import FixedLarge, FixedSmall

EDM = {"churn_low": 0.0, "churn_high": math.inf, "noise_scale": 1.0}
WITHOUT_NOISE = {
    "ddim": (DDIM, {"eta": 0.0}),
    "euler": (Euler, {"churn": 0.0, **EDM}),
    "heun": (Heun, {"churn": 0.0, **EDM}),
    "dpm_solver": (DPMSolver, {}),
    "dpm_solver_3m": (DPMSolver3M, {}),
    "unipc_1": (UniPC, {"predictor_order": 1}),
    "unipc_2": (UniPC, {"predictor_order": 2}),
    "unipc_3": (UniPC, {"predictor_order": 3}),
    "pndm": (PNDM, {}),
}
AFFINE_WITH_NOISE = {
    "ancestral_small": (Ancestral, {"variance": FixedSmall()}),
    "ancestral_large": (Ancestral, {"variance": FixedLarge()}),
    "ddim_eta_1": (DDIM, {"eta": 1.0}),
    "sde_dpm_solver": (SDEDPMSolver, {}),
    "heun_churn": (Heun, {"churn": 10.0, **EDM}),
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


def made(name, process, steps, times=timestep_spacing.uniform):
    kind, settings = ALL[name]
    return kind(process=process, timestep_spacing=times, steps=steps, **settings)
