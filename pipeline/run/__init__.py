"""Runs a plan: makes each step, judges the engine, publishes the version, notifies subscribers."""
