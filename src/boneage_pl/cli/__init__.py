"""How a command starts, helps, refuses and quotes."""
