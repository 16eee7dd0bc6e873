"""The learners and the loops that join them, in one process and without Ray."""
