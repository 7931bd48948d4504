"""Built-in plugins. Reserved: third parties ship packages of their own."""
