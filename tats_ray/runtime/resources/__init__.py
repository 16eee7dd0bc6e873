"""What a run asks of a cluster, and whether the cluster has it."""
