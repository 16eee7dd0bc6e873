"""The actors of a run, and what they and the workers say to each other."""
