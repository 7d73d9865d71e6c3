"""Losses and their gradients in the factors: plans of products, evaluators, and the choice between them."""
