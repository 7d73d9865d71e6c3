"""Problems: losses of a matrix from observations, their plain-value descriptions, and data read from files."""
