"""nn.Module → features φ and linear head, proved on a sample to be the same network."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from uncannyvalley.checks import check_evaluation_mode, check_images, check_labels, check_logits
from uncannyvalley.errors import InputError
from uncannyvalley.find_head import find_head, tensor_of
from uncannyvalley.head import Head
from uncannyvalley.prepare import (
    Body,
    Preparation,
    detached_copy,
    largest_difference,
    prepare_body,
    replace_module,
    tolerance_of,
)  # fmt: skip

SAMPLE_ROWS = 8
"""Rows of the sample that the proofs use."""


class Passthrough(nn.Module):
    """Stands where the head was, so that the network returns its features.

    It keeps the head's public attributes, which some networks read in their forward.
    """

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = head.in_features, head.out_features
        self.weight, self.bias = head.weight, head.bias

    def forward(self, features: Tensor) -> Tensor:
        return features


@dataclass(frozen=True)
class SplitModel:
    """A network as features φ and a linear head, working on a frozen copy of its own.

    body       images → features (n, d); the user's network without its head, perhaps prepared
    module     the body before torch.compile
    plain      the body without any preparation: its inner layers are those of the user's network
    head       W (k, d) and b
    head_name  the head's name in the user's network
    prepared   whether any preparation was kept (decides numbers at 1e-7, so it is part of a run's key)
    notes      one line for each preparation made or left out, with the reason
    """

    body: Body
    module: nn.Module
    plain: nn.Module
    head: Head
    head_name: str
    prepared: bool
    notes: tuple[str, ...]
    device: torch.device
    dtype: torch.dtype
    channels_last: bool
    sample_shape: tuple[int, ...]
    source: weakref.ref[nn.Module]
    source_state: tuple[tuple[int, int], ...]

    def in_double(self) -> "SplitModel":
        """The same model in float64, not compiled: for numerical tests."""
        bias = None if self.head.bias is None else self.head.bias.double()
        module = detached_copy(self.module).double()
        plain = module if self.plain is self.module else detached_copy(self.plain).double()
        head = Head(self.head.weight.double(), bias)
        return replace(self, body=module, module=module, plain=plain, head=head, dtype=torch.float64)

    @property
    def classes(self) -> int:
        return self.head.classes

    def features(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n d"]:
        """φ(x), differentiable in x."""
        return tensor_of(self.body(x))

    def __call__(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n k"]:
        """Logits of x, differentiable in x."""
        return self.head.logits(self.features(x))

    def place(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """x on the model's device, in its number type and memory layout."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return x.to(self.device, self.dtype).contiguous(memory_format=layout)

    def logits_of(self, x: Float[Tensor, "n ..."], batch_size: int = 256) -> Float[Tensor, "n k"]:
        """Logits of any number of images, on the CPU and without gradients."""
        with torch.no_grad():
            return torch.cat([self(self.place(part)).cpu() for part in x.split(batch_size)])

    def check_accepts(self, x: Float[Tensor, "n ..."]) -> None:
        """Raise InputError where the network fails on images of another shape than its sample's."""
        if tuple(x.shape[1:]) != self.sample_shape:
            with torch.no_grad():
                _call(self, self.place(x[:1]))

    def check_fresh(self) -> None:
        """Raise InputError where the user's network was trained on since it was split."""
        net = self.source()
        if net is not None and _weights_state(net) != self.source_state:
            raise InputError(
                "the network's weights changed after split() copied them; call split() again on the network"
            )


def split(
    net: nn.Module,
    sample: Float[Tensor, "n ..."],
    head: str | None = None,
    *,
    prepare: bool = True,
    compile: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> SplitModel:
    """Split ``net`` into features and linear head, on a frozen copy that is proved equal on ``sample``.

    The head is the last called nn.Linear whose output *is* the network's output (or its ``.logits``);
    ``head`` names another. ``prepare`` folds batch norm and uses channels-last memory where the logits
    of the sample stay equal to 1e-5 of the row's largest (float32); ``notes`` says what was kept.
    ``compile`` adds torch.compile. ``device`` and ``dtype`` are those of the copy, by default the network's.
    The network itself is only called once, in evaluation mode, without gradients.

    Raises InputError for a network in training mode, that is random, whose examples influence each
    other, without a linear head, or whose head is called twice, parametrised or followed by anything.

    Example
    -------
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    >>> split(net, torch.rand(2, 1, 2, 2)).head_name
    '1'
    """
    if isinstance(net, SplitModel):
        return net
    check_evaluation_mode(net)
    rows = check_images(sample)[:SAMPLE_ROWS]
    own = next((p for p in (*net.parameters(), *net.buffers()) if p.is_floating_point()), rows)
    with torch.no_grad():
        given = _call(net, rows.to(own.device, own.dtype))
    device, dtype = torch.device(device or own.device), dtype or own.dtype
    twin = detached_copy(net).to(device, dtype)
    rows = rows.to(device, dtype)
    name, linear = find_head(twin, rows, head)
    check_logits(given)
    expected = _check_plain_copy(twin, rows, given)
    body = replace_module(twin, linear, Passthrough(linear))
    bias = None if linear.bias is None else linear.bias.detach()
    weight_and_bias = Head(linear.weight.detach(), bias)
    _check_split(body, weight_and_bias, rows, expected, name)
    prepared = Preparation(body)
    if prepare or compile:
        prepared = prepare_body(body, weight_and_bias, rows, expected, fold=prepare, compile=compile)
    return SplitModel(
        prepared.body, prepared.module, body, weight_and_bias, name, prepared.kept_any, tuple(map(str, prepared.notes)),
        device, dtype, prepared.channels_last, tuple(rows.shape[1:]), weakref.ref(net), _weights_state(net),
    )  # fmt: skip


def split_for(
    net: nn.Module | SplitModel, x: object, y: object, *, prepare: bool = True
) -> tuple[SplitModel, Float[Tensor, "n ..."], Int[Tensor, "n"]]:
    """``net`` split (on ``x``, unless it is split already), with images and labels checked against it.

    Raises InputError for images, labels or networks that cannot be used, and for weights that changed since the split.
    """
    images = check_images(x)
    check_labels(y, len(images))
    model = net if isinstance(net, SplitModel) else split(net, images, prepare=prepare)
    model.check_fresh()
    model.check_accepts(images)
    return model, images, check_labels(y, len(images), model.classes)


def _weights_state(net: nn.Module) -> tuple[tuple[int, int], ...]:
    """Address and version of each parameter and buffer: moves whenever training moves a weight."""
    return tuple((t.data_ptr(), t._version) for t in (*net.parameters(), *net.buffers()))


def _call(net: Callable[[Tensor], object], rows: Tensor) -> Tensor:
    """The tensor a network returns; a failing call becomes one clear error."""
    try:
        return tensor_of(net(rows))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        first_line = str(error).strip().split("\n")[0]
        raise InputError(
            f"the model failed on images of shape {tuple(rows.shape)}: {type(error).__name__}: {first_line}. "
            "Check that the data have the shape the model was made for"
        ) from error


def _check_plain_copy(twin: nn.Module, rows: Tensor, given: Tensor) -> Tensor:
    """The copy's logits, which must be the network's, every time and for every batch."""
    tolerance = max(tolerance_of(rows.dtype), tolerance_of(given.dtype))
    with torch.no_grad():
        first, again = _call(twin, rows), _call(twin, rows)
        if largest_difference(again, first) > tolerance:
            raise InputError(
                "the model is random: two calls on the same images gave different logits. Fix its noise "
                "(a seed inside forward, or the mean over draws) before measuring"
            )
        if not largest_difference(first, given.to(first)) <= tolerance:
            raise InputError(
                "a copy of the model without its hooks gives other logits than the model: a forward hook changes "
                "them. Move what the hook does into the model's forward"
            )
        # one row beside another image of the same batch: complements differ in any batch statistic
        alone, paired = _call(twin, rows[:1]), _call(twin, torch.cat([rows[:1], 1 - rows[:1]]))
    if largest_difference(paired[:1], alone) > 100 * tolerance:
        raise InputError(
            "the model's examples influence each other: the logits of an image change with the other images of "
            "its batch (batch norm without running statistics?). Use running statistics in evaluation mode"
        )
    return first


def _check_split(body: nn.Module, head: Head, rows: Tensor, expected: Tensor, name: str) -> None:
    """head(φ(x)) must be the network's output."""
    with torch.no_grad():
        features = tensor_of(body(rows))
        shape_fits = features.dim() == 2 and features.shape == (len(rows), head.weight.shape[1])
        if not shape_fits or largest_difference(head.logits(features), expected) > tolerance_of(rows.dtype):
            raise InputError(
                f"W φ + b with the weights of the head {name!r} is not the model's output (features have shape "
                f"{tuple(features.shape)}): the layer does more than a linear map. Use a plain nn.Linear as head"
            )
