"""The loop of a render, its solvers and noise levels, and how it reports."""
