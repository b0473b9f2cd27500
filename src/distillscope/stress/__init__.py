"""What must run the model: noise, corruptions, waves and bands of frequency, attacks, latency."""
