"""From a folder to its page: sections, words, provenance, HTML."""
