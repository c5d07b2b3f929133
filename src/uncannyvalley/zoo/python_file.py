"""Models of one's own: a Python file and a callable in it."""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.typed_arguments import typed


def from_file(spec: str, arguments: Mapping[str, str]) -> nn.Module:
    """Run FILE.py and call what the last colon separates."""
    file, _, name = spec.rpartition(":")
    path = Path(file).expanduser()
    if not file or not name:
        raise InputError(f"model {spec!r} names no callable; write path/to/file.py:callable")
    if not path.is_file():
        raise InputError(f"model file {file!r} does not exist; check the path before the last colon")
    sys.path.insert(0, str(path.parent.resolve()))  # so that the file can import its neighbours
    try:
        build = _callable_in(path, name)
        net = build(**typed(build, arguments, "model argument"))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{spec} failed: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(net, nn.Module):
        raise InputError(f"{spec} must return a torch.nn.Module, it returned {type(net).__name__}")
    return net


def _callable_in(path: Path, name: str) -> Callable[..., Any]:
    module_spec = importlib.util.spec_from_file_location(f"uncanny_user_{path.stem}", path)
    if module_spec is None or module_spec.loader is None:
        raise InputError(f"{path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module
    module_spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise unknown_name(f"callable in {path.name}", name, known)
    return found
