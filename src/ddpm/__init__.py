"""Denoising diffusion models: train, sample, evaluate and compare them."""

__version__ = "0.1.0"
