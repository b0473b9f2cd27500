"""What a study found: the run directory, its one writer and its readers, and statistics over seeds."""
