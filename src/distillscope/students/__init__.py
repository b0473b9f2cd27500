"""Small networks to distil into, and loading of distilled ones."""
