"""Input checks, shared types, counter-based random numbers, atomic file writes, readers for untrusted files."""
