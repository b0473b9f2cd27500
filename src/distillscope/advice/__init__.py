"""Results of a study -> what to change and what to run next: pure functions, no files."""
