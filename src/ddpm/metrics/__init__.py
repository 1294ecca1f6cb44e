"""Feature extractors, scores of images with their error bars, and the protocol that is stored with them."""
