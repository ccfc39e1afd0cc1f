"""The contract between producers and workers: changes, keys, partitions, errors, schemas."""
