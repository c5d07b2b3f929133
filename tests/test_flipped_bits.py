"""One flipped bit is always noticed: by ``uncanny verify``, and by whoever reads that file. studies/flipped_bits.py flips more."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from folders import PLAN, flipped_bits, tiny_network, uncanny, verify_lines
from uncannyvalley import InputError
from uncannyvalley.run.plan import Plan
from uncannyvalley.storing.manifest import Manifest
from uncannyvalley.study.folder import open_study

FLIPS = 40


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two runs with kept logits, images, controls and pages."""
    place = tmp_path_factory.mktemp("flipped")
    tiny_network(place)
    (place / "grid.toml").write_text(PLAN.replace("limit = 10", "limit = 6"))
    uncanny("run", place / "grid.toml", "--out", place / "study")
    return place / "study"


def test_no_flip_goes_unnoticed(study: Path) -> None:
    assert verify_lines(study) == []
    seen = set()
    for flip in flipped_bits.flips(study, FLIPS, random.Random(0)):
        with flip.done():
            assert flipped_bits.unnoticed(study, flip.file, verify_lines) == [], flip
        seen.add(flipped_bits.kind_of(flip.file, study))
    assert len(seen) >= 8
    assert verify_lines(study) == []


READERS: dict[str, Callable[[Path], object]] = {
    "plan.toml": lambda file: open_study(file.parent),
    "*/*/*/*/*/plan.toml": Plan.read,
    "*/*/*/*/*/manifest.json": Manifest.read,
}


@pytest.mark.parametrize("name", list(READERS))
def test_flips_all_over_a_small_file(study: Path, name: str) -> None:
    """One bit of every byte: comments, names, numbers, white space, and the stamp itself."""
    file = next(study.glob(name))
    draw = random.Random(1)
    for byte in range(file.stat().st_size):
        flip = flipped_bits.Flip(file, byte, draw.randrange(8))
        with flip.done(), pytest.raises(InputError, match=file.name):
            READERS[name](file)


def test_every_kind_of_file_has_a_reader_or_is_derived(study: Path) -> None:
    for file in study.rglob("*"):
        if file.is_file() and file.stat().st_size and file.suffix not in (".png", ".html"):
            assert flipped_bits.readers_of(study, file) or file.name == "phases.parquet", file
