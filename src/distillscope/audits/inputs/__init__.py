"""Embeddings and labels from files and folders of any maker, and from models of any kind."""
