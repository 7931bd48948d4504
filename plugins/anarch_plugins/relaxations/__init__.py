"""The built-in relaxations."""
