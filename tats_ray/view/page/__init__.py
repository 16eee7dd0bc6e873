"""What stands on the pages of reports: a viewer of clips, and curves that answer the pointer."""
