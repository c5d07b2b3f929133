"""How a network is trained: what its steps descend, the loop, and what is kept of it."""
