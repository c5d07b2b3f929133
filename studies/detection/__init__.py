"""What `studies/detection.py` is made of: attacked images, features, detectors, tables."""
