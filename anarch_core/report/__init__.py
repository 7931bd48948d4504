"""Figures and one page about finished runs."""
