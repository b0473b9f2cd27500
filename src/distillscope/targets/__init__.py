"""Transforms of the teacher's embeddings, fitted on train images."""
