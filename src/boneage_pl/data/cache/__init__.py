"""Cache of decoded and resized images."""
