"""Training the tree of segments: one segment, who trains it, and the walk through the tree."""
