"""Policy algorithms, one file each. They know neither Ray nor Gymnasium."""
