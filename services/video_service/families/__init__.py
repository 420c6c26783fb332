"""The kinds of video model that the service renders with, one file each."""
