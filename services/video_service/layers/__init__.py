"""Wan's layers as our own modules: the same numbers as diffusers', in forms that torch runs, compiles and exports.

Every operation has a reference in plain torch, which runs on any device; on a CUDA device in bfloat16 a Triton kernel
or a library's best routine takes its place. Callers see no difference but time.
"""
