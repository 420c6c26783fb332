"""One video over several GPUs: the worker is the first of several processes, and each computes a share of a step."""
