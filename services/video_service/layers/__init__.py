"""Modules in the form that we compute, compile and export."""
