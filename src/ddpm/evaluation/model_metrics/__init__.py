"""What a model is measured by besides its images: likelihoods, the error of its samplers."""
