"""``uncanny train``: a network, or a plan of many, trained with the loop and the objectives of this package."""

from uncannyvalley.cli.training.command import train

__all__ = ["train"]
