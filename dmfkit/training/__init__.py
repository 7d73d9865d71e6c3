"""Training: gradient descent and gradient flow of batches of runs, and what is recorded on the way."""
