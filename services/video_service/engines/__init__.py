"""Checkpoints as graphs, graphs as engines, and engines in the slots of the torch modules."""
