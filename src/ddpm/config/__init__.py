"""A configuration in, wired objects out."""
