"""Every code block of the README and the docs is run, in order, in a folder that holds what its page names."""
