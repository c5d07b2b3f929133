"""``plan.toml`` of a study: the plan file as the user wrote it, and the key of every run that came of it."""

import hashlib
import tomllib
from dataclasses import dataclass

import tomli_w

from uncannyvalley import __version__
from uncannyvalley.errors import InputError, first_line
from uncannyvalley.run.plan import DAMAGED
from uncannyvalley.storing.places import Place
from uncannyvalley.storing.stamp import BLANK, is_intact, stamp


@dataclass(frozen=True)
class StudyPlan:
    """Which runs a study holds.

    grid  text of the plan file     cells  folder of a run below the study's → key of the run
    """

    grid: str
    cells: dict[str, str]
    version: str = __version__

    @property
    def key(self) -> str:
        """SHA-256 over the keys of all runs: over everything that decides a number of the study."""
        return hashlib.sha256("\n".join(sorted(self.cells.values())).encode()).hexdigest()

    def to_bytes(self) -> bytes:
        """The stamped file."""
        head = {
            "key": self.key,
            "stamp": BLANK,
            "version": self.version,
            "grid": self.grid,
            "cells": self.cells,
        }
        text = "# The runs of this study, by folder, with the key of each.\n" + tomli_w.dumps(
            head, multiline_strings=True
        )
        return stamp(text.encode())

    @classmethod
    def read(cls, path: Place) -> "StudyPlan | None":
        """The plan of a study's folder, None where it is the plan of a single run.

        Raises InputError where it is missing or is not what was written.
        """
        try:
            content = path.read_bytes()
            if not is_intact(content):
                raise InputError(f"{path} was damaged or edited: {DAMAGED}")
            entries = tomllib.loads(content.decode())
            if "cells" not in entries:
                return None
            plan = cls(entries["grid"], dict(entries["cells"]), entries["version"])
        except InputError:
            raise
        except FileNotFoundError as error:
            raise InputError(f"{path.parent} holds no run and no study: it has no {path.name}") from error
        except (
            OSError,
            UnicodeDecodeError,
            tomllib.TOMLDecodeError,
            KeyError,
            TypeError,
            ValueError,
        ) as error:
            raise InputError(f"{path} cannot be read ({first_line(error)})") from error
        return plan
