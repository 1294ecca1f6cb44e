"""The mathematics: it knows torch and ddpm.base, and neither files, ranks nor YAML."""
