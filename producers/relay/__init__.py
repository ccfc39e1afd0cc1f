"""What each relay does with an outbox, whichever library reads its tables."""
