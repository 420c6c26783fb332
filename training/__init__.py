"""How the embedded checkpoints were made; nothing here is needed to serve them."""
