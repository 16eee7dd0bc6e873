"""Policy algorithms, one file each. They know neither Ray nor Gymnasium.

`base` has the walk over the memory that all of them share, `terms` what their losses are made of.
"""
