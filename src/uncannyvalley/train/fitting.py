"""``fit``: a network, images, an objective and a recipe → a trained network, in a folder that resumes."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from uncannyvalley.checks import check_count
from uncannyvalley.data.images import Images
from uncannyvalley.errors import InputError, unknown_name
from uncannyvalley.storing.places import Place, place_of
from uncannyvalley.train.checkpoint import load_weights_of
from uncannyvalley.train.fitted import Fitted, Progress
from uncannyvalley.train.objectives import Objective
from uncannyvalley.train.preparing import PRECISIONS, as_images, prepare_task
from uncannyvalley.train.recipe import Recipe
from uncannyvalley.zoo.fitted import Origin
from uncannyvalley.zoo.heads import plain_heads


def fit(
    net: nn.Module,
    x: Float[Tensor, "n ..."] | Images,
    y: Int[Tensor, "n"] | None,
    objective: Objective,
    recipe: Recipe | None = None,
    *,
    head: str | None = None,
    validation: Images | tuple[Tensor, Tensor] | None = None,
    out: str | Place | None = None,
    origin: Origin | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    precision: str = "32-true",
    loggers: Sequence[Any] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Fitted:
    """Train a copy of ``net`` on labelled images; the network itself is left as it was.

    x, y         float images (n, …) in [0, 1] and int64 classes (n,); or ``data.Images`` and None
    objective    what each step descends: ``train.objectives``
    recipe       epochs, optimizer, schedule, augmentation, what is held out and what the network is selected by
    head         name of the linear or cosine head; found where there is one way
    validation   images of your own to select by, as data.Images or (x, y); the recipe's share is then not held out
    out          a folder that keeps ``plan.toml``, ``checkpoint.safetensors``, ``network.safetensors`` (the selected
                 network, ready to be loaded) and ``log.csv``. The same call goes on where the folder is; killed at any
                 moment and called again, it ends with the same bits on the CPU as undisturbed
    origin       where the network comes from, kept with it; see ``zoo.fitted``
    accelerator  "cpu", "cuda", "mps" or "auto"
    devices      of that kind; more than one train with data parallelism, a process each. They are started here, so a
                 script keeps what it does under ``if __name__ == "__main__":``; or by torchrun. Each takes its stride of
                 each batch. Batch statistics are then those of each process's own images, and the running ones those of
                 the first process, which alone looks at the validation images, and writes
    precision    "32-true", "64-true" or "bf16-mixed"
    loggers      "csv", "tensorboard" (into ``out``/loggers), or loggers of lightning_fabric; a training that was
                 interrupted writes the steps since the last checkpoint to them again
    overwrite    begin anew where ``out`` holds another training
    progress     called with steps done, steps in all, and the losses of the last step

    All modules are in training mode while they learn. The network's own random numbers (dropout) must come from torch's
    generator, which is seeded anew in each step.

    Raises InputError for what cannot be used, for folders that hold something else or are damaged, and, naming the
    step, for a loss that is no number any more; the last checkpoint is then kept.

    Example
    -------
    >>> images = uncannyvalley.data.load("digits:train")  # doctest: +SKIP
    >>> fitted = uncannyvalley.fit(net, images, None, pgd_at(eps=0.1), Recipe(epochs=30, eps=0.1), out="runs/mine")
    """
    recipe = _check_settings(recipe, devices, precision, net)
    running = _running()
    task, plan = prepare_task(
        net, as_images(x, y), _validation(validation), objective, recipe,
        head=head, origin=origin, accelerator=accelerator, devices=devices, precision=precision,
    )  # fmt: skip
    place = None if out is None else place_of(out)
    about = {"key": plan.key, "objective": objective.name, "seed": str(recipe.seed)}
    keeping = None if place is None else running.Keeping(place, plan, origin, about, overwrite)
    outcome = running.run_task(
        task, keeping, running.Devices(accelerator, devices, precision), running.make_loggers(loggers, place), progress
    )  # fmt: skip
    load_weights_of(task.net, outcome.weights)
    own = next(net.parameters())
    return Fitted(
        plain_heads(task.net).eval().to(own.device), tuple(outcome.history), outcome.best, place, plan.key,
        outcome.seconds,
    )  # fmt: skip


def _check_settings(recipe: Recipe | None, devices: int, precision: str, net: object) -> Recipe:
    """The recipe, with what is given beside it checked."""
    recipe = Recipe() if recipe is None else recipe
    if not isinstance(recipe, Recipe):
        raise InputError(f"recipe must be a Recipe, got {type(recipe).__name__}")
    check_count("devices", devices, 1)
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    types = {one.dtype for one in net.parameters()} if isinstance(net, nn.Module) else set()
    if PRECISIONS[precision] == torch.float32 and types - {torch.float32}:
        raise InputError(
            f"precision {precision!r} trains float32 weights, and the network's are {', '.join(map(str, types))}; "
            "call net.float(), or give precision='64-true'"
        )
    return recipe


def _validation(given: object) -> Images | None:
    if given is None or isinstance(given, Images):
        return None if given is None else as_images(given, None, "validation")
    if isinstance(given, tuple) and len(given) == 2:
        return as_images(*given, "validation")
    raise InputError(f"validation is data.Images or a pair of images and classes, got {type(given).__name__}")


def _running() -> Any:
    """The room behind Lightning Fabric, which is imported at the first training."""
    try:
        from uncannyvalley.train import running
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("lightning_fabric", "lightning_utilities"):
            raise
        raise InputError('training needs Lightning Fabric: pip install "uncannyvalley[train]"') from error
    return running
