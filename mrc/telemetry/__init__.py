"""What an agent tells of itself: structured logs and Prometheus metrics."""
