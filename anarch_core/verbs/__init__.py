"""The commands as functions of Python, for scripts and notebooks: what a command resolves, trains and writes, its function does too."""
