"""Benchmarks: mrc beside a peer in one run, ratios rather than absolute times; results carry their circumstances."""
