"""Figures by name, over whatever a folder holds."""
