"""The two learners and the loop that joins them, in one process and without Ray.

`runtime` runs the same loop over many processes; here it can be read, tested and timed.
"""
