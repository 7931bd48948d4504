"""Matrix-free curvature of a loss: products with its Hessian, Lanczos, spectral density and trace.

Nothing here knows of relaxations or probes: an operator is anything symmetric that multiplies a flat vector, and every number comes
with what is needed to judge it (residual, bound, number of products, standard error).
"""
