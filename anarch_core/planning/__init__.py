"""Memory, operations and time of a run, known before anything is trained."""
