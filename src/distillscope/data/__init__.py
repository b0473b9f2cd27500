"""Data sets, augmented views and preprocessing: images with stable ids."""
