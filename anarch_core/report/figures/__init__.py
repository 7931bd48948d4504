"""The figures of the paper: functions that take runs and return a matplotlib figure."""
