"""Read and write models in the formats of other programs, without these programs."""
