"""Experiments: grids of runs as labelled datasets, where they are stored, what computes them, how they are repeated."""
