"""All that Redis holds for the worker: the only room that sends it commands for the data path."""
