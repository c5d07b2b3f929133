"""A site is where the network is bent: one layer's weights as a matrix, or the input itself.

A linear or convolutional layer maps its input a to o = W P(a), where P(a) holds the patches that the kernel sees
(for a linear layer, a itself). Moving W by a matrix E that belongs to one example alone adds E P(a) to that
example's output, so every derivative in the weights can be taken for a whole batch at once.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.splitting import SplitModel

INPUT = "input"
"""Names the image itself as the site, in place of a layer."""

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Site:
    """One named layer as o = W P(a), or the input (``module`` None), where P is 1.

    shape   of a block of coordinates: (groups, rows, columns) of W, or (1, pixels, 1)
    """

    name: str
    module: Layer | None
    shape: tuple[int, int, int]

    @classmethod
    def of_layer(cls, name: str, module: Layer) -> "Site":
        weight = module.weight
        groups = 1 if isinstance(module, nn.Linear) else module.groups
        return cls(name, module, (groups, len(weight) // groups, weight[0].numel()))

    @classmethod
    def of_input(cls, sample_shape: tuple[int, ...]) -> "Site":
        return cls(INPUT, None, (1, prod(sample_shape), 1))

    def block(self, relative: bool) -> tuple[int, int, int]:
        """Shape of the coordinates: those of W, or of E in W + R E."""
        groups, rows, columns = self.shape
        return (groups, min(rows, columns), columns) if relative else self.shape

    def size(self, relative: bool = False) -> int:
        """How many coordinates the block has: the weights of the layer, or the pixels."""
        return prod(self.block(relative))

    @cached_property
    def weight(self) -> Float[Tensor, "g r c"]:
        """W as a matrix, one for each group of a convolution."""
        if self.module is None:
            raise InputError(
                "relative quantities need weights, and the input has none; at layer 'input' ask for trace, "
                "top_eigenvalue or third_derivative"
            )
        return self.module.weight.detach().reshape(self.shape)

    @cached_property
    def root(self) -> Float[Tensor, "g r e"]:
        """R with R Rᵀ = W Wᵀ: the symmetric root, or W itself where it has more rows than columns.

        In the coordinates E of W + R E every quantity is relative to W: Petzka's Σ_{s,s'} ⟨w_s, w_s'⟩ Tr H_{ss'} is
        the trace of the Hessian in E, whichever R is taken.
        """
        _, rows, columns = self.shape
        if rows > columns:
            return self.weight
        exact = self.weight.double()
        values, vectors = torch.linalg.eigh(exact @ exact.mT)
        return ((vectors * values.clamp(min=0).sqrt()[:, None, :]) @ vectors.mT).to(self.weight)

    def patches(self, a: Tensor) -> Float[Tensor, "n g c l"]:
        """P(a): a column for each place where the weights act."""
        if self.module is None:
            return a.new_ones(len(a), 1, 1, 1)
        if isinstance(self.module, nn.Linear):
            return a.reshape(len(a), -1, a.shape[-1]).mT[:, None]
        return _unfolded(self.module, a)

    def columns(self, o: Tensor) -> Float[Tensor, "n g r l"]:
        """An output of the layer (or a gradient of that shape) with one column for each place."""
        if isinstance(self.module, nn.Linear):
            return o.reshape(len(o), -1, o.shape[-1]).mT[:, None]
        groups, rows, _ = self.shape
        return o.reshape(len(o), groups, rows, -1)

    def moved(self, o: Tensor, a: Tensor, move: Float[Tensor, "n g r c"]) -> Tensor:
        """The layer's output o at input a when each example's weights are moved by ``move``."""
        shift = move @ self.patches(a)
        if isinstance(self.module, nn.Linear):
            return o + shift[:, 0].mT.reshape(o.shape)
        return o + shift.reshape(o.shape)

    def gradients(
        self, patches: Float[Tensor, "n g c l"], pull: Tensor, metrics: Collection[bool]
    ) -> dict[bool, Float[Tensor, "n p"]]:
        """∂/∂E at W + E (False) and at W + R E (True) of something whose gradient at the output is ``pull``."""
        wide = torch.promote_types(pull.dtype, torch.float32)  # products of half floats keep three digits
        columns, patches = self.columns(pull).to(wide), patches.to(wide)
        rows, places = columns.shape[2:]
        found = {}
        if False in metrics:
            found[False] = columns @ patches.mT
        if True in metrics:  # whichever product is the smaller
            by_weights = False in metrics and rows < places
            root = self.root.to(wide).mT
            found[True] = root @ found[False] if by_weights else (root @ columns) @ patches.mT
        return {metric: gradient.flatten(1) for metric, gradient in found.items()}


def shortened(patches: Float[Tensor, "n g c l"]) -> Float[Tensor, "n g e l"]:
    """P' of l rows with P'ᵀP' = PᵀP, where that is much shorter than P: gradients pull P'ᵀ keep all inner products.

    By a Cholesky factor in float64, whose jitter (1e-13 of the mean) lies far below float32; float64 networks keep P.
    """
    columns, places = patches.shape[2:]
    if patches.dtype == torch.float64 or 2 * places > columns:
        return patches
    exact = patches.double()
    gram = exact.mT @ exact
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    jitter = 1e-13 * diagonal.mean(dim=-1, keepdim=True) + torch.finfo(torch.float64).tiny
    factor, failed = torch.linalg.cholesky_ex(gram + torch.diag_embed(jitter.expand_as(diagonal)))
    return patches if bool(failed.any()) else factor.mT.to(patches)


def _unfolded(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, a: Tensor) -> Float[Tensor, "n g c l"]:
    """im2col for any number of dimensions, padding mode, stride, dilation and groups; differentiable twice."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    a = nn.functional.pad(a, layer._reversed_padding_repeated_twice, mode=mode)
    if a.dim() == 4:
        columns = nn.functional.unfold(a, layer.kernel_size, layer.dilation, 0, layer.stride)
    else:
        dims = len(layer.kernel_size)
        for axis in range(dims):
            reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
            a = a.unfold(2 + axis, reach, layer.stride[axis])[..., :: layer.dilation[axis]]
        places, kernel = range(2, 2 + dims), range(2 + dims, 2 + 2 * dims)
        columns = a.permute(0, 1, *kernel, *places).reshape(len(a), a.shape[1] * prod(layer.kernel_size), -1)
    return columns.reshape(len(a), layer.groups, columns.shape[1] // layer.groups, -1)


def layer_names(model: SplitModel) -> list[str]:
    """Names of all linear and convolutional layers of the user's network, in order, the head last."""
    inner = [name for name, module in model.plain.named_modules() if isinstance(module, LAYERS)]
    return [name for name in inner if name != model.head_name] + [model.head_name]


def find_site(model: SplitModel, name: str) -> Site:
    """The site that ``name`` means; InputError where the network has none of that name."""
    if name == model.head_name:
        return Site.of_layer(name, _head_layer(model))
    if name == INPUT:
        return Site.of_input(model.sample_shape)
    modules = dict(model.plain.named_modules())
    if name not in modules:
        raise unknown_name("layer", name, [*layer_names(model), INPUT])
    if not isinstance(modules[name], LAYERS):
        raise InputError(
            f"layer {name!r} is of type {type(modules[name]).__name__}; curvature is measured in the weights of nn.Linear, "
            f"nn.Conv1d, nn.Conv2d or nn.Conv3d. Known: {', '.join(layer_names(model))}, {INPUT}"
        )
    return Site.of_layer(name, modules[name])


def _head_layer(model: SplitModel) -> nn.Linear:
    """The head as a module of its own, with the same weights."""
    weight, bias = model.head.weight, model.head.bias
    layer = nn.Linear(weight.shape[1], len(weight), bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer
