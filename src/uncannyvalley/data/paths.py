"""Paths inside names like ``hf:FOLDER:SPLIT``, which may hold colons themselves."""

from pathlib import Path

from uncannyvalley.errors import InputError


def existing(text: str, kind: str) -> Path:
    """The path that ``text`` is; InputError where it is empty or not there."""
    if not text:
        raise InputError(f"data '{kind}:' lacks a path; write {kind}:PATH")
    path = Path(text).expanduser()
    if not path.exists():
        raise InputError(f"data file {text!r} does not exist; check the path after {kind}:")
    return path


def leading_folder(text: str, most: int) -> tuple[Path, list[str]] | None:
    """The longest folder that ``text`` starts with, and the at most ``most`` parts after it; None without one."""
    for parts in range(most + 1):
        path, *after = text.rsplit(":", parts)
        if path and (folder := Path(path).expanduser()).is_dir():
            return folder, after
    return None
