"""Noise schedules: each a function from a few numbers to a NoiseSchedule, one a file."""
