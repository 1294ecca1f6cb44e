"""The environment of a run: folder, resuming, processes, devices, signals, console output, and its overrides."""
