"""What can be proved about a split network: Lipschitz constants, certified radii, and the flatness bound on the loss."""
