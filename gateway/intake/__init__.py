"""A request's body → its fields: bounded while it arrives, read by one rule in every encoding."""
