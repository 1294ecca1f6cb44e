"""Evaluation of images and models: targets, references, model metrics, sweeps, and tables and plots of the results."""
