"""Video libraries that jump to a frame, where they are exact."""
