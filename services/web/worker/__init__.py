"""One supervised worker process: the model lives there, the HTTP process gives it one piece of work at a time."""
