"""Feature extractors: networks that turn 8-bit images into the vectors that every score is computed from."""
