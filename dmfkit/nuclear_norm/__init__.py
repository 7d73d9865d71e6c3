"""Minimum nuclear norm: by CVXPY, by splitting, and the observation operators that both use."""
