"""Any layer, any order: what needs the network itself, not only its last features."""
