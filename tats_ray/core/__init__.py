"""Shared vocabulary: token grid, data structures, protocols, errors, random streams."""
