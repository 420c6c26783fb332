"""Where files lie: on disk, or in a bucket with copies on disk."""
