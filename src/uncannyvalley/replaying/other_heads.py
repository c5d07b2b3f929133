"""Heads to replay a walk with: one from a file, a simplex frame, or one fitted with smoothed labels."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from uncannyvalley.errors import InputError, first_line, unknown_name
from uncannyvalley.head import Head
from uncannyvalley.replaying.kept_walk import KeptWalk
from uncannyvalley.replaying.smoothed import smoothed_head

HEADS = ("etf", "smoothed")
ENDING = ".safetensors"


def other_head(walk: KeptWalk, head: "Head | str | Path") -> tuple[Head, str]:
    """The head that is meant, and its name: a ``Head``, FILE.safetensors, "etf" or "smoothed".

    Raises InputError for unknown names, unreadable files, and heads whose shape does not fit the walk's features and classes.
    """
    walk.check_features("another head")
    if isinstance(head, Head):
        return _fitting(head.weight, head.bias, walk, "the given head"), "given"
    text = str(head)
    if text.endswith(ENDING):
        return _fitting(*_of_file(Path(text)), walk, text), text
    if text == "etf":
        return simplex_head(walk.recorded_head("the simplex frame")), text
    if text == "smoothed":
        features, labels = walk.clean_features()
        return smoothed_head(features, labels, int(walk.about["classes"])), text
    raise unknown_name(f"head (or FILE{ENDING})", text, HEADS)


def simplex_head(recorded: Head) -> Head:
    """The simplex equiangular tight frame nearest to the recorded W: rows of one length, all pairs at one angle.

    With k classes let F (k, k − 1) be an orthonormal basis of the vectors whose entries sum to 0, times √(k/(k − 1)): rows of
    length 1 whose inner products are −1/(k − 1). The head is W' = |W|_F/√k · F Q, where Q (k − 1, d) with orthonormal rows
    minimises |W − W'|_F (orthogonal Procrustes): from the singular value decomposition Fᵀ W = A S Bᵀ, Q = A Bᵀ. |W'|_F = |W|_F,
    the bias stays. Then ½|w_s − w_s'|² = |W|²_F/(k − 1) for every pair, so log geometry is one number. float64.
    Source: Papyan, Han and Donoho 2020, arXiv 2008.08186, for the frame. Raises InputError where d < k − 1: no frame fits.
    """
    weight = recorded.weight.detach().cpu().double()
    classes, width = weight.shape
    if width < classes - 1:
        raise InputError(
            f"a simplex frame of {classes} classes needs features of at least {classes - 1} dimensions; these have {width}"
        )
    frame = _mean_free_basis(classes) * (classes / (classes - 1)) ** 0.5
    left, _, right = torch.linalg.svd(frame.T @ weight, full_matrices=False)
    length = torch.linalg.matrix_norm(weight) / classes**0.5
    return Head(length * frame @ left @ right, recorded.bias)


def _mean_free_basis(classes: int) -> torch.Tensor:
    """Orthonormal columns (k, k − 1) that are orthogonal to the vector of ones (Helmert's)."""
    basis = torch.zeros(classes, classes - 1, dtype=torch.float64)
    for column in range(classes - 1):
        basis[: column + 1, column] = 1.0
        basis[column + 1, column] = -(column + 1.0)
    return basis / basis.norm(dim=0)


def _of_file(path: Path) -> tuple[torch.Tensor, torch.Tensor | None]:
    try:
        tensors = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} cannot be read as a head ({first_line(error)}); give a {ENDING} file"
        ) from error
    if set(tensors) - {"weight", "bias"} or "weight" not in tensors:
        raise InputError(
            f"{path} must hold the tensors weight (classes, features) and, if there is one, bias (classes); it holds "
            f"{', '.join(sorted(tensors)) or 'nothing'}"
        )
    return tensors["weight"], tensors.get("bias")


def _fitting(weight: torch.Tensor, bias: torch.Tensor | None, walk: KeptWalk, name: str) -> Head:
    """The head of these tensors on the CPU, if it can be applied to the walk's features."""
    classes, width = int(walk.about["classes"]), walk.width
    if tuple(weight.shape) != (classes, width):
        raise InputError(
            f"{name} has weights of shape {tuple(weight.shape)}; {walk.name} has {classes} classes and features of {width} "
            f"dimensions, so it must be ({classes}, {width})"
        )
    if bias is not None and tuple(bias.shape) != (classes,):
        raise InputError(f"{name} has a bias of shape {tuple(bias.shape)}; expected ({classes},)")
    given = [weight] if bias is None else [weight, bias]
    if not all(one.is_floating_point() and bool(torch.isfinite(one).all()) for one in given):
        raise InputError(f"{name} must hold finite floating-point numbers")
    return Head(weight.detach().cpu(), None if bias is None else bias.detach().cpu())
