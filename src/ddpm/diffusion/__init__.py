"""The mathematics of diffusion. It depends only on torch and `ddpm.base`, and handles no files, ranks or YAML."""
