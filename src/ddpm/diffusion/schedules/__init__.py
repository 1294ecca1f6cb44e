"""Noise schedules: functions from a few numbers to a NoiseSchedule."""
