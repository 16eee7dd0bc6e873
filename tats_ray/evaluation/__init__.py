"""Evaluation of trained networks: masks, features, probes, tests, comparisons."""
