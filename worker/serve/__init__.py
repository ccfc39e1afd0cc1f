"""`contact-sync serve`: metrics for Prometheus, probes, and a page for operators."""
