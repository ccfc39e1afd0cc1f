"""A local file that keeps changes while Redis does not take them."""
