"""The stand-in endpoint: the contract's first section in memory, with faults to order; for tests, demo and users."""
