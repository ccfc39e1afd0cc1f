"""The demo: the whole system at work on this machine, shown live, and checked at its end."""
