"""The renders of this process, in memory, and their files."""
