"""What evaluate.py sweep=... goes through: one model in many variants, side by side."""
