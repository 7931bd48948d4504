"""Penalties: terms beside the loss, for relaxed layers."""
