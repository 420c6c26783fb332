"""Videos say that they were made by AI, how and by whom: C2PA manifests and the label in the container's metadata."""
