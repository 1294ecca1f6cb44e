"""Uses of a trained model besides drawing samples, one a file: python sample.py ckpt=... task=NAME."""
