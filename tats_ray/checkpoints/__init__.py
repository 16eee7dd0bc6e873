"""Checkpoints of any project: files, folders, names, and networks back from them."""
