"""Modules in the form that we compute, compile and export: the same numbers as the plain libraries', in torch on any device, in kernels on CUDA."""
