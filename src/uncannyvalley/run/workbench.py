"""The networks and images in use, kept between requests that share them."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from uncannyvalley.data import Images
from uncannyvalley.run.plan import Plan
from uncannyvalley.run.recorder import Work
from uncannyvalley.run.request import Request, load_images, load_model, make_work
from uncannyvalley.splitting import SplitModel

KEPT = 4
"""Networks, and data sets, kept at once: the last ones that were asked for."""

Value = TypeVar("Value")


class Workbench:
    """Requests → plans and work, loading each network and each data set once for many requests."""

    def __init__(self) -> None:
        self._models: OrderedDict[tuple[Any, ...], tuple[SplitModel, str]] = OrderedDict()
        self._images: OrderedDict[tuple[Any, ...], Images] = OrderedDict()

    def make(self, request: Request) -> tuple[Plan, Work]:
        """Everything that the request needs, checked, and the plan that names it."""
        images = _kept(self._images, (request.data, request.limit), lambda: load_images(request))
        network = (
            request.model, tuple(sorted(request.model_arguments.items())), request.weights, request.head, request.device,
            request.dtype, request.prepare, request.compile, request.data, request.limit,
        )  # fmt: skip
        model = _kept(self._models, network, lambda: load_model(request, images))
        return make_work(request, images, model)


def _kept(
    store: "OrderedDict[tuple[Any, ...], Value]", key: tuple[Any, ...], make: Callable[[], Value]
) -> Value:
    if key not in store:
        if len(store) >= KEPT:
            store.popitem(last=False)
        store[key] = make()
    store.move_to_end(key)
    return store[key]
