"""The HTTP face of the service: routes, readiness, and what every error means to a caller. Imports no model library."""
