"""What numbers say, in sentences computed from them."""
