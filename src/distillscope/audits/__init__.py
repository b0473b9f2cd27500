"""Embeddings or models from files -> an audit: readers, bounds, self-test."""
