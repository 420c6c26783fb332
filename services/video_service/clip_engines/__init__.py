"""The engines that a clip needs, and which of those in the store render it. Imports no model library."""
