"""Whether an input was pushed: features of a decision, detectors with a promised false-positive rate, and their enemies."""
