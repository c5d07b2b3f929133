"""Each claim of arXiv 2405.16918 as a question with a rule: what would make it hold, measured, and the verdict."""
