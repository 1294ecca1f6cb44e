"""What a noise schedule does to the signal, in numbers, a verdict and a picture."""
