"""What recorded walks say: phases with their shares, contrasts with controls, and doubts about the method."""
