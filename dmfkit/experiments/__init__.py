"""Experiments: grids of runs as labelled datasets, where they are stored, and how they are spread and made again."""
