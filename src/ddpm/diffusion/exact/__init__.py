"""Ideal denoisers, exact output distributions of samplers, and inversion and likelihood by the probability flow."""
