"""Training losses: each a callable from a denoiser and clean samples to LossTerms."""
