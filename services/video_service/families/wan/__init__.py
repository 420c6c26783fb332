"""The families of Wan in diffusers' layout, one a file, and what they share."""
