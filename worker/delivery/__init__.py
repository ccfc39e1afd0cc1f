"""The loop, from a claimed partition to a settled batch, and the HTTP request in the middle of it."""
