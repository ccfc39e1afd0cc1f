"""What operators ask for, one module each: it returns a value, and the command prints that."""
