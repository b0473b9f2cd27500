"""A student as a file for devices: its preprocessing inside, every file verified before it is written."""
