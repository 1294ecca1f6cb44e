"""Sweeps of evaluate.py sweep=...: one model in many variants, and a comparison of their values."""
