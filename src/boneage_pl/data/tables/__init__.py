"""Find, parse and validate label tables and match their ids to image files."""
