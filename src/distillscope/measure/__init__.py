"""Measures of embeddings: pure functions on arrays.

A measure is a function whose parameters name what it needs; ``pool.Pair`` computes each of those once and lazily::

    @measures.register("participation_ratio", unit="dims", group="spectrum", interval="jackknife")
    def participation_ratio(eigenvalues):
        "(sum of eigenvalues)^2 / sum of squared eigenvalues, of the centred embeddings."

The registered name is the key of the value (measures of one side get ``teacher.`` or ``student.`` before it), and the
first line of the docstring is its definition wherever the value is shown.
"""
