"""The driver: starts a run, watches it, ends it."""
