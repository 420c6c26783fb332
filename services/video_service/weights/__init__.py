"""Checkpoint files, where they are put, and what is merged into them."""
