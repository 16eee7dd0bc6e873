"""What a laptop asks a cluster."""
