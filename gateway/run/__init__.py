"""What happens to a job after the request: the durable engine, the parts of a job, its end, webhooks, taking over."""
