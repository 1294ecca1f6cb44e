"""Samplers: rules that step from a time t to an earlier one; the loop is in base.py."""
