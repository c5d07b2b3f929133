"""A run folder: ``plan.toml``, ``shards/``, ``images/``, ``manifest.json`` and ``controls/NAME/``."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.torch import load_file

from uncannyvalley.errors import InputError
from uncannyvalley.head import Head
from uncannyvalley.run.files import SCRATCH_ENDING, cannot_write, locked, sha256, write_text
from uncannyvalley.run.plan import Plan
from uncannyvalley.trajectory import Trajectory

HEAD_FILE = "head.safetensors"


@dataclass(frozen=True)
class RunFolder:
    """A folder that holds one run; ``open_run`` reads one, ``folder_for`` makes or resumes one."""

    path: Path
    plan: Plan

    @property
    def manifest_path(self) -> Path:
        return self.path / "manifest.json"

    def manifest(self) -> dict[str, Any]:
        """Finished shards with rows, SHA-256 and seconds, and the provenance that decides no number."""
        if not self.manifest_path.exists():
            return {"shards": {}, "provenance": {}, "diagnostics": []}
        try:
            return json.loads(self.manifest_path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.manifest_path} cannot be read ({error}); delete it and record again to rebuild it"
            ) from error

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        write_text(self.manifest_path, json.dumps(manifest, indent=1, sort_keys=True) + "\n")

    def missing_shards(self) -> list[str]:
        """Shards of the plan that are not there, or are not what was written."""
        listed = self.manifest()["shards"]
        return [name for name in self.plan.shards() if not self._is_whole(name, listed)]

    def _is_whole(self, name: str, listed: dict[str, Any]) -> bool:
        path = self.path / "shards" / name
        return name in listed and path.exists() and sha256(path) == listed[name]["sha256"]

    @cached_property
    def trajectory(self) -> Trajectory:
        """All finished shards as one trajectory; InputError where one was changed on disk."""
        listed = self.manifest()["shards"]
        names = [name for name in self.plan.shards() if name in listed]
        if not names:
            raise InputError(
                f"{self.path} holds no finished shard yet; run the same uncanny record again to go on"
            )
        broken = [name for name in names if not self._is_whole(name, listed)]
        if broken:
            raise InputError(
                f"{self.path}: {', '.join(broken)} {'is' if len(broken) == 1 else 'are'} missing or changed since written "
                "(SHA-256 differs); run the same uncanny record again to write anew"
            )
        tables = [_read_parquet(self.path / "shards" / name) for name in names]
        return Trajectory(pa.concat_tables(tables).unify_dictionaries())

    def controls(self) -> dict[str, Trajectory]:
        """The control walks that were recorded beside this run, by name."""
        folder = self.path / "controls"
        # reversed: noise before assist, as everywhere
        found = sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []
        runs = {child.name: open_run(child) for child in found if (child / "plan.toml").is_file()}
        return {name: run.trajectory for name, run in runs.items() if run.manifest()["shards"]}

    def head(self) -> Head:
        """W and b of the run's network; InputError where the run kept no logits."""
        path = self.path / HEAD_FILE
        try:
            tensors = load_file(path)
        except FileNotFoundError as error:
            raise InputError(f"{self.path} kept no head; record with --keep logits") from error
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} cannot be read ({error}); record again") from error
        return Head(tensors["weight"], tensors.get("bias"))

    def images(self) -> dict[int, dict[int, tuple[list[str], np.ndarray]]]:
        """Kept iterates: example → step → (roles, pixels (c, h, w))."""
        kept: dict[int, dict[int, tuple[list[str], np.ndarray]]] = {}
        for path in sorted((self.path / "images").glob("*.parquet")):
            table = _read_parquet(path)
            shape = tuple(int(one) for one in table.schema.metadata[b"shape"].decode().split(","))
            pixels = table["pixels"].combine_chunks().values.to_numpy().reshape(-1, *shape)
            rows = zip(
                table["example"].to_pylist(),
                table["step"].to_pylist(),
                table["roles"].to_pylist(),
                pixels,
                strict=True,
            )
            for example, step, roles, image in rows:
                kept.setdefault(example, {})[step] = (roles, image)
        return kept


def _read_parquet(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path} cannot be read ({str(error).splitlines()[0]}); delete it and run the same uncanny record again"
        ) from error


def open_run(path: str | Path) -> RunFolder:
    """The run in a folder that ``uncanny record`` wrote; InputError where there is none."""
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist; give the folder that uncanny record --out wrote")
    return RunFolder(folder, Plan.read(folder / "plan.toml"))


@contextmanager
def folder_for(path: Path, plan: Plan, overwrite: bool = False) -> Iterator[RunFolder]:
    """A folder held for ``plan`` by this process alone: new, or with the same run so far.

    A folder that was new and got no finished shard is removed again. Raises InputError for a folder of
    another run, of another process or of anything else; never deletes what is no run.
    """
    is_new = _check_place(path)
    with locked(path):
        run = _resumed(path, plan, overwrite)
        try:
            yield run
        finally:
            if is_new and not run.manifest()["shards"]:
                shutil.rmtree(path, ignore_errors=True)


def _check_place(path: Path) -> bool:
    """Whether ``path`` is free; InputError where something else is there."""
    try:
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file; choose a folder for the run")
        entries = [one.name for one in path.iterdir()] if path.exists() else []
    except OSError as error:
        raise cannot_write(path, error) from error
    if set(entries) - {".lock"} and "plan.toml" not in entries:
        raise InputError(f"{path} is not empty and holds no run; choose a new folder (nothing was changed)")
    return not entries


def _resumed(path: Path, plan: Plan, overwrite: bool) -> RunFolder:
    run = RunFolder(path, plan)
    try:
        if overwrite:
            _clear(path)
        elif (path / "plan.toml").exists():
            run = RunFolder(path, _agreeing(path, plan))
        for scratch in path.rglob(f"*{SCRATCH_ENDING}"):  # left by a killed process
            scratch.unlink()
        (path / "shards").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    if not (path / "plan.toml").exists():
        write_text(path / "plan.toml", plan.to_toml())
    return run


def _agreeing(path: Path, plan: Plan) -> Plan:
    """The folder's plan, if it is this one."""
    there = Plan.read(path / "plan.toml")
    if there.key != plan.key:
        raise InputError(
            f"{path} holds another run (it differs in {', '.join(plan.differences(there)) or 'its content'}); choose another "
            "folder, or replace it with --overwrite"
        )
    return there


def _clear(path: Path) -> None:
    for one in path.iterdir():
        if one.name == ".lock":
            continue
        if one.is_dir() and not one.is_symlink():
            shutil.rmtree(one)
        else:
            one.unlink()
