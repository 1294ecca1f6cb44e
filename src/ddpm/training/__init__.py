"""The only room that knows Lightning: the module, the averaged weights, the optimizer, the callbacks."""
