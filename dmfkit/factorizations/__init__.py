"""Factorizations: batches of factors, how they are initialised, compressed, and described as plain values."""
