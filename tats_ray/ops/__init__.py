"""Pure functions on tensors: no state, no configuration objects, no I/O."""
