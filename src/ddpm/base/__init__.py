"""Checks of input, what travels between rooms, noise as a pure function, whole files, files of strangers."""
