"""The numbers of recorded walks as the page carries them: small, exact and as text."""
