"""Checkpoints as files: written whole, verified, found in a folder, brought to today's layout, read as data."""
