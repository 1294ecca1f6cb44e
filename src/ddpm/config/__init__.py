"""Build models and trainings from configurations."""
