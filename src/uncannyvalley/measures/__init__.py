"""What is read off a probe, by derivative order, which is by cost."""

from uncannyvalley.measures import first, second, squared, third, zeroth  # noqa: F401  # importing registers
from uncannyvalley.measures.registry import available, measure, read, resolve

__all__ = ["available", "measure", "read", "resolve"]
