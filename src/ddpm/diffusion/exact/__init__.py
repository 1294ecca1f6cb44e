"""Closed forms: ideal denoisers, what a sampler makes of them, the inversion and the likelihood of the flow."""
