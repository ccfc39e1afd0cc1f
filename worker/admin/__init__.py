"""What operators ask: one module a question or job. Each returns a value that the command prints."""
