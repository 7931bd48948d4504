"""The settings of a run, from flags, files and recipes to one checked record; nothing here imports torch."""
