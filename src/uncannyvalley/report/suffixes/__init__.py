"""Suffixes of prompts, token by token: strips in colour, and what came of them."""
