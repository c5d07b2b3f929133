"""``python -m uncannyvalley`` is the command ``uncanny``."""

from uncannyvalley.cli.app import main

main()
