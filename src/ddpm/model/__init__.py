"""`DiffusionModel`, which combines a network with the diffusion process; the codec; averaged weights."""
