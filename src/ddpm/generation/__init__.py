"""Sampling many images: sample numbers as a data set, stores that continue, records of what a folder holds."""
