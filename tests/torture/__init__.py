"""Attacks on the program, each with a count of what held: ``make torture``; docs/torture.md says what is attacked."""
