"""Room 5: what generated images are compared with, and how the values are shown."""
