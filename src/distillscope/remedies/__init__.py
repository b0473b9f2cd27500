"""What is done to a student after training."""
