"""A slice of the suite with other servers than the suite's own: Redis 6.2, Redis 7.0, Valkey."""
