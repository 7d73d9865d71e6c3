"""Linear algebra: spectra, thin and orthogonal matrices, sampled products, what multiplies and what compiles."""
