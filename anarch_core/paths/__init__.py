"""Paths between two networks: through weight space, straight or relaxed, and through output space; and the barriers on them."""
