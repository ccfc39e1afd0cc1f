"""Sending: takes, checks, stamps and encodes changes, exchanges them with Redis, and reports on each."""
