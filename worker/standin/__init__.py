"""The stand-in endpoint: the platform's API in memory, with faults on demand; for tests, the demo and users."""
