"""Guidance towards a condition: denoisers that wrap a denoiser."""
