"""State probes: what frozen features say of true states, such as the places of objects."""
