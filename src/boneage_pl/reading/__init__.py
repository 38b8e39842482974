"""From the file of a radiograph to an answer that one can rely on, and that says when one cannot."""
