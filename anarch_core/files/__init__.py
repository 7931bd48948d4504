"""Files of runs: replaced whole, read with care, locked."""
