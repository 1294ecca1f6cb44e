"""Room 4: what generated images are worth, as numbers that say how they were made.

Nothing is imported here: `ddpm.base.images` is wanted where nobody should wait for torchmetrics to load.
"""
