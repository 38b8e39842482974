"""Networks, what they are trained on, and how they are asked."""
