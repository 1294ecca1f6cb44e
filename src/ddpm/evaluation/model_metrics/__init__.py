"""Metrics of a model itself: likelihoods, restoration, anomaly detection, and errors of samplers."""
