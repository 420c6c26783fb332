"""What a job is: its states, its record, its place in the line, and who is told of its changes."""
