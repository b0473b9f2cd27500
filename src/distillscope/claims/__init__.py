"""Claims: results of a study -> a verdict, one function each, and the statistics that they share."""
