"""What was given to ``fit`` → a training that can run on any process, and its plan."""

import copy
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from uncannyvalley.checks import check_images, check_labels
from uncannyvalley.data.images import Images
from uncannyvalley.errors import InputError, first_line
from uncannyvalley.find_head import find_head, tensor_of
from uncannyvalley.prepare import detached_copy
from uncannyvalley.train.batches import held_out
from uncannyvalley.train.objectives import Objective
from uncannyvalley.train.plan import TrainingPlan
from uncannyvalley.train.recipe import Recipe
from uncannyvalley.zoo.fitted import Origin
from uncannyvalley.zoo.heads import CosineHead
from uncannyvalley.zoo.weights import fingerprint

PRECISIONS: dict[str, torch.dtype] = {
    "32-true": torch.float32,
    "64-true": torch.float64,
    "bf16-mixed": torch.float32,
}
"""Number types of training → that of the images. float16 would need a loss scale, one more state to keep."""


@dataclass(frozen=True)
class Task:
    """A training, ready to run on any process.

    net         its own copy of the network             head_name  of its linear or cosine head
    images      labelled images, as they were stored    rows       of them that are trained on
    validation  what networks are selected by, or None  selection  "robust", "clean" or "last"
    dtype       of the images' floats                   key        of everything that decides its numbers
    """

    net: nn.Module
    head_name: str
    images: Images
    rows: Int[Tensor, "m"]
    validation: Images | None
    objective: Objective
    recipe: Recipe
    selection: str
    dtype: torch.dtype
    key: str


def prepare_task(
    net: nn.Module,
    images: Images,
    validation: Images | None,
    objective: Objective,
    recipe: Recipe,
    *,
    head: str | None,
    origin: Origin | None,
    accelerator: str,
    devices: int,
    precision: str,
) -> tuple[Task, TrainingPlan]:
    """Everything checked; InputError for what cannot be trained, or not so."""
    if not isinstance(objective, Objective):
        raise InputError(
            f"objective is one of train.objectives, such as erm() or pgd_at(eps=8/255), got {type(objective).__name__}"
        )
    own = _own_copy(net).to(dtype=PRECISIONS[precision])
    if validation is None:
        rows, kept = held_out(len(images), recipe.validation_share, recipe.seed)
        looked = None if len(kept) == 0 else Images(images.pixels[kept.numpy()], images.labels[kept])
    else:
        rows, looked = torch.arange(len(images)), validation
    looked = None if looked is None else looked.first(recipe.evaluation_examples)
    head_name = _check_forward(own, images, head)
    _check_sizes(recipe, len(rows), devices)
    plan = TrainingPlan(
        {
            "network": {"fingerprint": fingerprint(own), "head": head_name},
            "data": {
                "examples": len(images), "fingerprint": images.fingerprint,
                "validation": None if looked is None else looked.fingerprint,
            },
            "objective": {"name": objective.name, "settings": dict(objective.settings)},
            "recipe": recipe.settings,
            "engine": {"devices": devices, "precision": precision},
        },
        {"origin": None if origin is None else asdict(origin), "accelerator": accelerator},
    )  # fmt: skip
    task = Task(
        own, head_name, images, rows, looked, objective, recipe, _selection(recipe, looked),
        PRECISIONS[precision], plan.key,
    )  # fmt: skip
    return task, plan


def as_images(x: object, y: object, what: str = "x") -> Images:
    """Labelled images: as they are, or of a float tensor in [0, 1] and classes; InputError for anything else."""
    if isinstance(x, Images):
        if y is not None:
            raise InputError(f"{what} is data.Images, which hold their labels; leave y out (None)")
        if len(x) == 0:
            raise InputError(f"{what} holds no images")
        if x.pixels.dtype != "uint8":
            check_images(x.pixels)
        return x
    pixels = check_images(x).cpu()
    return Images(pixels.numpy(), check_labels(y, len(pixels)).cpu())


def _own_copy(net: nn.Module) -> nn.Module:
    """A copy with its hooks, since old-style weight and spectral norms are hooks, and without gradients."""
    if not isinstance(net, nn.Module):
        raise InputError(
            f"net must be a torch.nn.Module that maps images to logits, got {type(net).__name__}"
        )
    try:
        own = copy.deepcopy(net)
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"the network cannot be copied ({first_line(error)}); weight norm of the old style, or a handle inside, "
            "is in the way: use torch.nn.utils.parametrizations"
        ) from error
    own.zero_grad(set_to_none=True)
    if not any(one.requires_grad for one in own.parameters()):
        raise InputError("no weight of the network requires a gradient; call net.requires_grad_(True) first")
    return own


def _check_forward(net: nn.Module, images: Images, head: str | None) -> str:
    """The head's name; InputError where the network fails on an image, or has fewer classes than the labels."""
    twin = detached_copy(net).eval()
    own = next(twin.parameters())
    sample = images[:1].to(own.device, own.dtype)
    cosine = [name for name, one in twin.named_modules() if isinstance(one, CosineHead)]
    try:
        with torch.no_grad():
            logits = tensor_of(twin(sample))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the network failed on images of shape {tuple(sample.shape)}: {type(error).__name__}: {first_line(error)}"
        ) from error
    check_labels(images.labels, len(images), logits.shape[1])
    if head is None and cosine:
        return cosine[-1]
    return head if head in cosine and head is not None else find_head(twin, sample, head)[0]


def _check_sizes(recipe: Recipe, count: int, devices: int) -> None:
    if recipe.batch_size > count:
        raise InputError(
            f"batch_size {recipe.batch_size} exceeds the {count} images to train on; choose at most {count}"
        )
    if recipe.batch_size % devices:
        raise InputError(
            f"batch_size {recipe.batch_size}, of all devices together, is not a multiple of {devices} devices; "
            f"choose {max(1, recipe.batch_size // devices) * devices}, say"
        )


def _selection(recipe: Recipe, validation: Images | None) -> str:
    if validation is None:
        if recipe.selection not in (None, "last"):
            raise InputError(
                f"selection by {recipe.selection} accuracy needs validation images: give a validation_share above 0, "
                "or images, or select the last network"
            )
        return "last"
    return recipe.selection or ("clean" if recipe.eps is None else "robust")
