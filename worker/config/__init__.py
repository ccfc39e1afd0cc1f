"""Reads what comes from the environment: settings, server keys, addresses, database URLs."""
