"""What runs inside a Ray Train worker."""
