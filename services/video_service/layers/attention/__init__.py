"""Self-attention: dense, and the sparse forms that models were taught with."""
