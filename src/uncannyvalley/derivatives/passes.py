"""Forward passes of the plain network that can be differentiated at its sites."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from uncannyvalley.derivatives.plain_norms import PlainNorms
from uncannyvalley.derivatives.sites import Site, find_site, layer_names
from uncannyvalley.errors import InputError
from uncannyvalley.find_head import tensor_of
from uncannyvalley.splitting import SplitModel

Change = Callable[[Site, Tensor, Tensor], Tensor]
"""(site, its input, its output) → the output that the network goes on with."""


@dataclass(frozen=True)
class Traced:
    """One forward: logits, and for each site its inputs and outputs, call by call."""

    logits: Float[Tensor, "n k"]
    inputs: dict[str, list[Tensor]]
    outputs: dict[str, list[Tensor]]

    def called_once(self) -> bool:
        return all(len(calls) == 1 for calls in self.outputs.values())


@contextmanager
def differentiable(order: int = 2) -> Iterator[None]:
    """Forward passes that can be differentiated ``order`` times.

    Attention by plain matrix products, since torch's fused kernels have no second derivative; for third derivatives
    also normalisation by plain operations, since torch's own is wrong there (`derivatives/plain_norms.py`).
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), PlainNorms() if order > 2 else nullcontext():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def trace(model: SplitModel, sites: Sequence[Site], x: Float[Tensor, "n ..."]) -> Traced:
    """A forward whose logits can be differentiated at the output of every site, for one backward for all of them.

    What lies before the first site is computed without a graph. Raises InputError for a layer that is never called.
    """
    inputs: dict[str, list[Tensor]] = {}
    outputs: dict[str, list[Tensor]] = {}

    def mark(site: Site, a: Tensor, o: Tensor) -> Tensor:
        o = o if o.requires_grad else o.detach().requires_grad_()
        inputs.setdefault(site.name, []).append(a.detach())
        outputs.setdefault(site.name, []).append(o)
        return o.clone()  # a ReLU that works in place must not overwrite what was marked

    logits = _forward(model, sites, x, mark)
    for site in sites:
        if site.name not in outputs:
            raise _never_called(site)
    return Traced(logits, inputs, outputs)


def logits_at(
    model: SplitModel,
    site: Site,
    x: Float[Tensor, "n ..."],
    move: Float[Tensor, "n g r c"],
    order: int = 2,
) -> Float[Tensor, "n k"]:
    """Logits of each example when its own weights at the site (or its pixels) are moved by ``move``.

    Differentiable in ``move`` ``order`` times, where the network's operations allow.
    """
    called = False

    def add(site: Site, a: Tensor, o: Tensor) -> Tensor:
        nonlocal called
        called = True
        return site.moved(o, a, move)

    logits = _forward(model, [site], x, add, order)
    if not called:
        raise _never_called(site)
    return logits


def _forward(model: SplitModel, sites: Sequence[Site], x: Tensor, change: Change, order: int = 2) -> Tensor:
    """The plain network's logits, each site's output replaced by ``change(site, input, output)``."""
    rows = len(x)

    def hook_for(site: Site) -> Callable[..., Tensor]:
        def hook(_module: nn.Module, args: tuple, kwargs: Mapping, o: Tensor) -> Tensor:
            a = args[0] if args else kwargs["input"]
            if len(o) != rows:
                a, o = _by_example(site, a, rows), _by_example(site, o, rows)
                return change(site, a, o).reshape(-1, *o.shape[2:])
            return change(site, a, o)

        return hook

    with ExitStack() as stack, torch.enable_grad():
        stack.enter_context(differentiable(order))
        by_name = {site.name: site for site in sites}
        head = by_name.get(model.head_name)
        for site in sites:
            if site.module is None:
                x = change(site, x, x)
            elif site is not head:
                handle = site.module.register_forward_hook(hook_for(site), with_kwargs=True)
                stack.callback(handle.remove)
        features = tensor_of(model.plain(x))
        logits = model.head.logits(features)
        return logits if head is None else change(head, features, logits)


def _by_example(site: Site, tensor: Tensor, rows: int) -> Tensor:
    """(n·m, …) as (n, m, …): networks that fold windows or positions into the batch."""
    if len(tensor) % rows or not isinstance(site.module, nn.Linear):
        raise InputError(
            f"layer {site.name!r} gives outputs of shape {tuple(tensor.shape)} for {rows} images: they do not belong "
            "to the images one by one. Choose a layer whose first axis is the batch"
        )
    return tensor.reshape(rows, -1, *tensor.shape[1:])


def _never_called(site: Site) -> InputError:
    return InputError(
        f"layer {site.name!r} is never called by the model's forward (its weights are unused, or read by another "
        "module, as nn.MultiheadAttention does); choose another layer"
    )


def called_layers(model: SplitModel) -> list[str]:
    """Names of the layers that a forward calls: of all that could be measured, those that can."""
    called: set[str] = set()
    sites = [find_site(model, name) for name in layer_names(model)]

    def note(site: Site, a: Tensor, o: Tensor) -> Tensor:
        called.add(site.name)
        return o

    grey = torch.full((1, *model.sample_shape), 0.5, dtype=model.dtype, device=model.device)
    _forward(model, sites, grey, note)
    return [site.name for site in sites if site.name in called]


@torch.enable_grad()
def check_ownership(model: SplitModel, sites: Sequence[Site]) -> None:
    """Raise InputError unless each site's rows belong to the images in order.

    Two random images: the logits of neither may move with the part of the output that is the other's.
    """
    draw = torch.Generator().manual_seed(0)
    x = model.place(torch.rand(2, *model.sample_shape, generator=draw))
    traced = trace(model, sites, x)
    named = [(site.name, o) for site in sites for o in traced.outputs[site.name]]
    if not traced.logits.requires_grad:
        shown = ", ".join(repr(site.name) for site in sites)
        raise InputError(f"the output of layer {shown} never reaches the logits: all its derivatives are 0")
    outputs = [o for _, o in named]
    for image in (0, 1):
        pulls = torch.autograd.grad(
            traced.logits[image].sum(), outputs, allow_unused=True, materialize_grads=True, retain_graph=True
        )
        for (name, o), pull in zip(named, pulls, strict=True):
            half = len(o) // 2
            if not bool((pull[half:] if image == 0 else pull[:half]).any()):
                continue
            raise InputError(
                f"layer {name!r} does not keep the images apart along its first axis (sequence first?): the "
                "derivatives of one image cannot be told from another's. Choose a layer whose first axis is the batch"
            )


@contextmanager
def saved_bytes() -> Iterator[Callable[[], int]]:
    """Counts what autograd keeps for backward passes while the block runs; a tensor kept twice counts twice."""
    total = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal total
        total += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield lambda: total
