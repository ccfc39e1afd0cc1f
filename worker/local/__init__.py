"""Processes on this machine that end when their owner does: a Redis server, a worker, a stand-in endpoint."""
