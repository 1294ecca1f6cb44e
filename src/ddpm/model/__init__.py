"""What joins the mathematics and a network: the codec at the pixel border, the averaged weights."""
