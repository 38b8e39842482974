"""The model in a browser."""
