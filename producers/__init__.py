"""The client that upstream apps use to say what changed."""
