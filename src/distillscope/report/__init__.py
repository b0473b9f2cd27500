"""Tables, figures and the page, from a run directory alone."""
