"""Figures by matplotlib, of numbers that were computed before."""
