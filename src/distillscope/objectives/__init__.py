"""Losses between embeddings, and transforms of the targets."""
