"""Files and folders: written whole, locked by one writer, named safely, read once for each format."""
