"""Where the programs of two families of networks differ, though their papers say the same.

Weights that were trained under one convention are worth less under the other.
"""

from dataclasses import dataclass

from ddpm.networks.embeddings import Waves, cosinusoid, sinusoid


@dataclass(frozen=True)
class Convention:
    """waves: of a time. norm_eps: of all group norms. pads_both_sides: before a convolution of stride 2."""

    waves: Waves
    norm_eps: float
    pads_both_sides: bool


CONVENTIONS = {
    "ddpm": Convention(sinusoid, norm_eps=1e-6, pads_both_sides=False),  # Ho et al. 2020
    "adm": Convention(cosinusoid, norm_eps=1e-5, pads_both_sides=True),  # Nichol and Dhariwal; Dhariwal and Nichol 2021
}
