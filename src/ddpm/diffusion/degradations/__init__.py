"""Degradations without noise, from which Cold Diffusion builds generative models (Bansal et al. 2022)."""
