"""Requests from a laptop to a cluster: jobs, nodes, network, authentication."""
