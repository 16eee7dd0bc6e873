"""A `RunConfig`, start to finish: what the commands do."""
