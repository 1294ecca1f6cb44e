"""Feature extractors: networks that map 8-bit images to the feature vectors of scores."""
