"""What must run the model: noise, corruptions, latency."""
