"""Implementation details in which the published programs differ although their papers agree.

Weights must be used with the convention with which they were trained.
"""

from dataclasses import dataclass

from ddpm.networks.embeddings import Waves, cosinusoid, sinusoid


@dataclass(frozen=True)
class Convention:
    """waves: sinusoidal embedding of a time. norm_eps: eps of all group norms. pads_both_sides: see `Downsample`."""

    waves: Waves
    norm_eps: float
    pads_both_sides: bool


CONVENTIONS = {
    "ddpm": Convention(sinusoid, norm_eps=1e-6, pads_both_sides=False),  # Ho et al. 2020
    "adm": Convention(cosinusoid, norm_eps=1e-5, pads_both_sides=True),  # Nichol and Dhariwal; Dhariwal and Nichol 2021
}
