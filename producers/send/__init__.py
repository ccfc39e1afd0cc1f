"""From a caller's changes to Redis: checked, stamped, packed, sent, and reported one by one."""
