"""What watches a run: each callback one file, none needed by another."""
