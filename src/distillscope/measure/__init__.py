"""Measures of embeddings: pure functions on arrays."""
