"""The vocabulary: token grid, the structs that travel, seams, errors, random streams."""
