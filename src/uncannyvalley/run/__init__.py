"""Runs on disk: the plan that decided the numbers, shards that are there whole or not at all, resuming."""
