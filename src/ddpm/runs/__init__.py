"""A run as seen from outside: its folder, its processes, devices, signals, and what was typed to start it."""
