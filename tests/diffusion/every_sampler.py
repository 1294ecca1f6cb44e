"""One of each sampler, for tests of what all of them must do."""

import math

from ddpm.diffusion import timestep_spacing
from ddpm.diffusion.samplers.ancestral import Ancestral
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.samplers.dpm_solver import DPMSolver
from ddpm.diffusion.samplers.dpm_solver_3m import DPMSolver3M
from ddpm.diffusion.samplers.euler import Euler
from ddpm.diffusion.samplers.heun import Heun
from ddpm.diffusion.samplers.langevin import Langevin
from ddpm.diffusion.samplers.pndm import PNDM
from ddpm.diffusion.samplers.sde_dpm_solver import SDEDPMSolver
from ddpm.diffusion.samplers.unipc import UniPC
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


def made(name, process, steps, times=timestep_spacing.uniform):
    kind, settings = ALL[name]
    return kind(process=process, timestep_spacing=times, steps=steps, **settings)
