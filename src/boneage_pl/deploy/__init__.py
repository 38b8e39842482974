"""A trained model for where this package is not: files for other programs, and a card."""
