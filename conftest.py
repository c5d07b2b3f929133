"""Every block of Python and shell in the README and the docs is a test: tests/documented says how they are run."""

import os
import sys
from pathlib import Path

from sybil import Sybil

sys.path.insert(0, str(Path(__file__).parent / "tests"))

from documented.pages import PAGES, close_page, parse

os.environ.setdefault("UNCANNY_QUICK", "1")

pytest_collect_file = Sybil(parsers=[parse], patterns=PAGES, teardown=close_page).pytest()
