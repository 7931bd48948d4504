"""Augmentations: random changes to training inputs."""
