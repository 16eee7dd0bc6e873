"""What `tats select` shows."""
