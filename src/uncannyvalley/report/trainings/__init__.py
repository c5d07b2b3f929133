"""A training as figure and page."""
