"""What pulls samples towards that which is asked for: wrappers of a denoiser, which are denoisers."""
