"""The mathematics: it knows torch, ddpm.types, ddpm.rng and ddpm.check, and neither files, ranks nor YAML."""
