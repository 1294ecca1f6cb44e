"""Images in [-1, 1] and the order in which a run sees them. `datamodule.py` is the room's only door to Lightning."""
