"""From a request to a job: bodies read with limits, pictures checked, parameters settled."""
