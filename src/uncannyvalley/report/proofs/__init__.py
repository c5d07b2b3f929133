"""What is proved of a network, as figures and sections of pages: bounds on the loss, certified radii."""
