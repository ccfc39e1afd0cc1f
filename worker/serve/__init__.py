"""What an operator looks at: metrics for Prometheus, probes, and a page that shows and mends (`contact-sync serve`)."""
