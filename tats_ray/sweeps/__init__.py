"""Many runs: their plan, trials, measures and report."""
