"""Side-by-side benchmarks, each against a named baseline in the same run."""
