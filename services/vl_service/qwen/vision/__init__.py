"""Looking at a picture once: towers, the cache of what was seen, the wire between the vision and the language role."""
