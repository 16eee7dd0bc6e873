"""One run from start to finish: its plan, folder, lock, board and report."""
