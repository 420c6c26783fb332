"""Looking at a picture once: the cache of what was seen, and the wire between the vision role and the language role."""
