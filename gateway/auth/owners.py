"""Who owns what is made, and how early an owner's jobs may run."""

LOCAL_OWNER = "local"
"""Owns everything that is made where no keys are needed."""

DEFAULT_PRIORITY = 10
"""Lower runs first. Always set: the engine runs a job without a priority before all others."""
HIGHEST_PRIORITY, LOWEST_PRIORITY = 1, 100
