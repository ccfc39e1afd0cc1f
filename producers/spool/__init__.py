"""The spool: a local file that keeps changes while Redis does not accept them."""
