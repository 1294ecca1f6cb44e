"""Guidance towards a condition: wrappers of a denoiser, which are denoisers."""
