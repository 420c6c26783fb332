"""HTML of what the gateway tells: every text from outside is escaped here."""
