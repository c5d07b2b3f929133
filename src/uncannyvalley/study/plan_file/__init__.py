"""The plan file of a study: TOML in which lists span a grid → its cells; every mistake with its line."""
