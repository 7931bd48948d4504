"""Training the tree of segments: what is there, what is missing, and the walk that has it made."""
