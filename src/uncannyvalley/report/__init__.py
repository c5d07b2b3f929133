"""Figures and pages: they draw what analysis computed, and compute nothing."""
