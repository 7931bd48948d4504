"""One segment of training, from the network that it starts with to its result file."""
