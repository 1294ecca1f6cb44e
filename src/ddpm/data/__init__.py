"""Data sets: sources of images, decoding and the resumable loader. Only `datamodule.py` depends on Lightning."""
