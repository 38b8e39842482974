"""Label tables: find, parse and validate them, and match their ids to image files."""
