"""What a run shows: live board, plain lines, files, pictures, report.

A run is a stream of events, dicts with a `kind`: `start`, `metrics`, `note`, `checkpoint`.
"""
