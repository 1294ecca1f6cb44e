"""Conditions of a network: how they are computed from training images, and from requests for samples."""
