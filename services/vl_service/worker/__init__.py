"""What runs in the process that owns the model."""
