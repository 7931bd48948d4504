"""What makes relaxed networks fast."""
