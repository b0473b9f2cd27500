"""Several runs or audits, each with the first: numbers only."""
