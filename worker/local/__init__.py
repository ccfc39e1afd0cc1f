"""Processes started on this machine that end when their owner does: a Redis, a worker, a stand-in; and `up`."""
