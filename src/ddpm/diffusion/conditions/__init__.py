"""What a network is told of each image beside its noise, and how samples are asked for it."""
