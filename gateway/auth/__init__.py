"""Who may ask: keys and their limits, owners, signed links."""
