"""Every tolerance of the measures, each with its reason."""

import numpy as np

EPSILON = float(np.finfo(np.float64).eps)

# Eigenvalues come from a float64 scatter matrix, so those below about d * eps of the largest are rounding noise:
# singular values are exact down to sqrt(d * eps), about 3e-7 of the largest at d = 512. The algebraic rank uses it.
RANK = 1e-12

# RankMe's own epsilon (arXiv:2210.02885, equation 1), added to each p.
RANKME = 1e-7

# A row shorter than this, relative to the longest, has no direction that float32 input could have meant.
ZERO_ROW = 1e-12

# Two rows this close, relative to their length, are one point for TwoNN: below it distances are float32 rounding.
DUPLICATE = 1e-6

# Same rows in another order, in other chunks, or with other thread counts: only the order of float64 sums changes.
REORDERED = 1e-9
