"""Embeddings or models from files -> an audit: models that embed, bounds, self-test."""
