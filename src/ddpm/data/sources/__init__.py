"""Image sources, one file each. Other modules depend on `base.py` only."""
