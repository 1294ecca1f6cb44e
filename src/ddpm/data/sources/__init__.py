"""Where images come from. One file each; all that the rest of the room knows of them is `base.py`."""
