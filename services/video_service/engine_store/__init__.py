"""Engines on disk and which of them to use. Imports no model library: the HTTP process reads it."""
