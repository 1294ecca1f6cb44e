"""What a noise schedule does: numbers, verdict, picture."""
