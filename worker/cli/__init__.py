"""The commands, one module each: they parse options, call the other rooms, and print words or JSON."""
