"""Networks that were trained here: one file that holds the weights, and says which network they belong to.

``network.safetensors`` keeps tensors, and in its metadata a JSON text: where the untrained network comes from (its
``Origin``), the fingerprint of the trained one, and a stamp over all bytes. Nothing in it runs: an origin that is a
Python file is named again by whoever loads the weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from uncannyvalley.errors import InputError
from uncannyvalley.storing.places import Place
from uncannyvalley.storing.tensors import read_tensors, write_tensors
from uncannyvalley.zoo.weights import fingerprint

NETWORK_FILE = "network.safetensors"
FORMAT = 1
HEADS = ("linear", "cosine")
FILE = "file"
"""The argument that names the Python file of a fitted network again."""


@dataclass(frozen=True)
class Origin:
    """Which network was trained, as ``zoo.load`` takes it.

    spec       --model; "" for a network that was made in Python
    arguments  --model-arg
    head       how its head was trained, one of HEADS; a cosine head became ``UnitFeatures`` and an nn.Linear
    head_name  the head's name in the network that ``spec`` makes
    """

    spec: str
    arguments: Mapping[str, str]
    head: str
    head_name: str


@dataclass(frozen=True)
class FittedFile:
    """What a file of a trained network holds. ``about``: whatever its training said of itself."""

    origin: Origin
    fingerprint: str
    about: Mapping[str, str]
    weights: Mapping[str, Tensor]


def save_fitted(
    path: Place, net: nn.Module, origin: Origin | None, about: Mapping[str, str] | None = None
) -> None:
    """Write ``net`` with plain heads as the one file ``path``, whole or not at all.

    Raises InputError for a network whose state holds more than tensors, and where the disk refuses.
    """
    from uncannyvalley.zoo.heads import plain_heads

    plain = plain_heads(net)
    state = plain.state_dict()
    if others := [key for key, value in state.items() if not isinstance(value, Tensor)]:
        raise InputError(f"the network's state holds more than tensors ({', '.join(others[:4])})")
    known = {
        "format": FORMAT, "origin": None if origin is None else asdict(origin) | {"arguments": dict(sorted(origin.arguments.items()))},
        "fingerprint": fingerprint(plain), "about": dict(sorted((about or {}).items())),
    }  # fmt: skip
    write_tensors(path, state, known)


def fitted_file(spec: str) -> Path | None:
    """The file of a fitted network that ``spec`` names, itself or by its folder; None where ``spec`` is no such path.

    Raises InputError for a folder that holds none.
    """
    path = Path(spec).expanduser()
    if path.is_file() and path.suffix == ".safetensors":
        return path
    if not spec or not path.is_dir():
        return None
    if not (path / NETWORK_FILE).is_file():
        raise InputError(_without_network(path))
    return path / NETWORK_FILE


def _without_network(folder: Path) -> str:
    if inside := sorted(folder.glob(f"*=*/**/{NETWORK_FILE}")):
        return f"{folder} holds several fitted networks; name one of them, such as {inside[0].parent}"
    if (folder / "checkpoint.safetensors").exists():
        return f"the training in {folder} has not come as far as a network; the same uncanny train goes on with it"
    return f"{folder} holds no {NETWORK_FILE}, so it is no fitted network; give the folder that uncanny train --out wrote"


def read_fitted(file: Path) -> FittedFile:
    """A fitted network's file, proved to be what was written.

    Raises InputError for files that are damaged, were not written by ``save_fitted``, or by a newer version.
    """
    known, weights = read_tensors(
        file,
        format=FORMAT,
        damaged="was damaged, or is no fitted network: its stamp does not fit its bytes. Take a copy, or delete the folder "
        "and train again; weights from elsewhere are given with --weights to a named model",
        outdated="update uncannyvalley",
    )
    origin = Origin(**(known["origin"] or {"spec": "", "arguments": {}, "head": "linear", "head_name": ""}))
    return FittedFile(origin, known["fingerprint"], known["about"], weights)


def named_again(file: Path, found: FittedFile, arguments: Mapping[str, str]) -> Origin:
    """The origin, its Python file as ``arguments`` name it: code runs only where the user says so.

    Raises InputError where it must be named and is not, and for arguments that do not belong here.
    """
    origin, given = found.origin, dict(arguments)
    spec = given.pop(FILE, None)
    runs_code = ".py:" in origin.spec
    if spec is None and (runs_code or not origin.spec):
        came = (
            f"was trained from the Python file {origin.spec}"
            if runs_code
            else "was trained in Python and does not name its network"
        )
        named = origin.spec if runs_code else "my_model.py:build"
        raise InputError(
            f"{file} {came}; code is run only where you name it: --model {file.parent} --model-arg {FILE}={named}"
        )
    if spec is None:
        if given:
            raise InputError(f"a fitted network takes no arguments, got {', '.join(given)}")
        return origin
    if not (runs_code or not origin.spec):
        raise InputError(f"{file} was trained from {origin.spec}, not from a Python file; leave {FILE}= out")
    return Origin(spec, {**origin.arguments, **given}, origin.head, origin.head_name)


def from_fitted(
    file: Path,
    arguments: Mapping[str, str],
    untrained: Callable[[str, Mapping[str, str]], nn.Module],
) -> nn.Module:
    """The trained network of ``file``, in evaluation mode; ``untrained`` makes the network that an origin names.

    Raises InputError where the file was damaged, its Python file was not named, or what its origin makes is another
    network than the one that was saved.
    """
    found = read_fitted(file)
    origin = named_again(file, found, arguments)
    net = with_head(untrained(origin.spec, origin.arguments), origin)
    dtypes = {value.dtype for value in found.weights.values() if value.is_floating_point()}
    if len(dtypes) == 1:
        net = net.to(dtype=next(iter(dtypes)))
    try:
        net.load_state_dict(dict(found.weights))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"the weights of {file} do not fit what {origin.spec} makes: {reason}") from error
    if fingerprint(net) != found.fingerprint:
        raise InputError(
            f"{origin.spec} makes another network than the one in {file}: the weights fit, and the fingerprint "
            "over its modules and constants does not. Give the code, and the arguments, that it was trained with"
        )
    return net.eval()


def with_head(net: nn.Module, origin: Origin) -> nn.Module:
    """``net`` with the head that it was saved with."""
    if origin.head == "linear":
        return net
    from uncannyvalley.zoo.heads import plain_heads, with_cosine_head

    with torch.random.fork_rng(devices=[]):  # the new head's weights are drawn, and then loaded over
        return plain_heads(with_cosine_head(net, origin.head_name)).requires_grad_(True)


def origin_of(spec: str, arguments: Mapping[str, str], head: str, head_name: str) -> Origin:
    """The origin of a network that is about to be trained: that of a fitted one stays its own."""
    file = fitted_file(spec) if spec else None
    if file is None:
        return Origin(_absolute(spec), dict(arguments), head, head_name)
    before = named_again(file, read_fitted(file), arguments)
    if before.head == "linear":
        return Origin(before.spec, before.arguments, head, head_name)
    if head == "cosine":
        raise InputError(f"{spec} has a cosine head already; go on with it as it is: leave the head out")
    return before


def _absolute(spec: str) -> str:
    """A folder of ``hf:FOLDER`` is found again from anywhere."""
    kind, _, rest = spec.partition(":")
    folder = Path(rest).expanduser()
    return f"{kind}:{folder.resolve()}" if kind == "hf" and folder.is_dir() else spec
