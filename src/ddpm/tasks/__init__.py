"""Other uses of a trained model, one file each: python sample.py ckpt=... task=NAME."""
