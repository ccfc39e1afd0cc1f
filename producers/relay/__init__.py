"""The relay of an outbox, independent of the library that reads its tables."""
