"""What the three HTTP apps share at their edges, so that they speak identically: errors, token, logs."""
