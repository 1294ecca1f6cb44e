"""Samplers: rules that step from a time t to an earlier one, one a file; the loop is in base.py."""
