"""Untrusted bytes → a checked image: upright, in sRGB on white, encoded anew. Decoders run in children of their own."""
