"""What a trained network is worth: masks, features, probes, tests, comparisons."""
