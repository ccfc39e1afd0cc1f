"""The servers behind one URL of Redis: which there are, and how connections find them."""
