"""Modules in the form that we compute and export: in torch on any device, in kernels of our own on CUDA.

Each has the numbers of the plain library up to rounding, which tests/ hold on a CPU and tests/gpu on a card.
"""
