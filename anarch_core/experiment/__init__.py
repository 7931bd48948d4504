"""An experiment as a tree of segments, what all of them share, and what they leave on disk."""
