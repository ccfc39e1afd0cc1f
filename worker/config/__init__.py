"""What comes in from the environment: settings, keys, addresses, database URLs."""
