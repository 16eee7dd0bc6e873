"""Reports that are asked for: of one run once more, and of several side by side."""
