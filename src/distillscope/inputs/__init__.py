"""Embeddings and labels from files and folders of any maker."""
