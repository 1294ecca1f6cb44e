"""Analysis of a noise schedule: numbers, verdict, plot."""
