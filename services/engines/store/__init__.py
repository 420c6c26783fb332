"""Engines on disk: what they are, whether they were seen to be right, and what may use them. Imports no model library.

The HTTP process of a service reads it.
"""
