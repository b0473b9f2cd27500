"""Every tolerance of the measures, each with its reason."""

import numpy as np

# Half of the relative spacing of the numbers that a precision holds, and its smallest number above zero.
ROUNDOFF = {"bfloat16": 2.0**-9, "float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}
SMALLEST = {"bfloat16": 2.0**-133, "float16": 2.0**-24, "float32": 2.0**-149, "float64": 0.0}

# A component whose variance is below this many times what rounding alone puts along it is rounding noise. The rounding
# noise of n rows in d dimensions is uneven by (1 + sqrt(d / n))^2 (Marchenko & Pastur), which is multiplied in.
ROUNDED = 1.5

# A component this much weaker than the one before it is another regime (a noise floor): a power law is not fitted across.
STEP = 1e-3

EPSILON = float(np.finfo(np.float64).eps)

# Eigenvalues come from a float64 scatter matrix, so those below about d * eps of the largest are rounding noise:
# singular values are good down to sqrt(d * eps), about 3e-7 of the largest at d = 512. The algebraic rank uses it.
RANK = 1e-12

# RankMe's own epsilon (arXiv:2210.02885, equation 1), added to each p.
RANKME = 1e-7

# Cosines of equal rows differ by a few eps, since a matrix product sums its blocks in different orders; closer than
# this they are one similarity. Rows that float32 input can tell apart differ by more than 1e-7.
TIE = 1e-12

# Same rows in another order, in other chunks, or with other thread counts: only the order of float64 sums changes, by
# about eps * sqrt(n); eigenvectors of nearly equal eigenvalues amplify it.
REORDERED = 1e-9

# Draws of a null are products in float32 of rows whose energy is one, and singular values are roots of eigenvalues: each errs
# by about sqrt(d) * 1e-8 of the largest. Draws scatter by a hundred times that and more.
NULL = 1e-5

# Losses of InfoNCE from a product in float32, at temperature 0.1: a cosine errs by up to d u, 3e-5 at d = 512 and far less in
# the mean of many. Only points of the curve over K come from one.
SINGLE = 1e-5

# What float16 storage costs a measure of moments: half precision rounds each value by at most 2^-11 of itself, and
# these errors average out over the rows.
FLOAT16 = 2e-3

# The same for bfloat16, which rounds by at most 2^-8.
BFLOAT16 = 2e-2
