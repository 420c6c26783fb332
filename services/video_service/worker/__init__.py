"""The process that owns the model, and the loop that gives it renders."""
