"""Corruptions without noise, of which Cold Diffusion makes generative models (Bansal et al. 2022)."""
