"""Training with Lightning: the module, the turns of several networks, optimizers, loggers and callbacks."""
