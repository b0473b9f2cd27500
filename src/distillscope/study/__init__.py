"""A study: checks, plan, the grid of trials, the teacher's own results, one student for use."""
