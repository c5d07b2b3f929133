"""What a decision costs beside the network's own forward: passes, and processor time measured in turns with it."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from uncannyvalley.detect.evaluation.progress import Advance
from uncannyvalley.detect.image_detector import ImageDetector

TURNS = 3

PATIENCE = 5.0
"""Seconds of one decision about a batch beyond which the first call is the measurement: what it prepares weighs little then."""


@dataclass(frozen=True)
class Timing:
    """Medians of processor time (all threads), in seconds for the whole batch.

    plain     the network's own forward, as its user calls it
    decision  ``predict``, which includes the network's answer
    ratio     median of decision/plain over turns
    elapsed   median wall-clock time of a decision: the latency
    """

    batch: int
    plain: float
    decision: float
    ratio: float
    elapsed: float


@dataclass(frozen=True)
class Cost:
    """Passes of a decision and its time at each batch size."""

    forwards: int
    backwards: int
    timings: tuple[Timing, ...]


def cost(
    detector: ImageDetector,
    x: Float[Tensor, "n ..."],
    *,
    batches: Sequence[int] | None = None,
    turns: int = TURNS,
    advance: Advance = lambda done: None,
) -> Cost:
    """Measured on images of ``x``, repeated to fill a batch. Plain forward and decision take turns: a busy machine slows both.

    batches  sizes; None: one image, and as many as the detector judges at a time
    turns    0 counts passes and measures nothing. On an accelerator each call is waited for
    advance  called with the images of a batch after each turn, ``timed_images`` of them in all
    """
    sizes = _sizes(detector, batches) if turns else ()
    timings = [_timing(detector, _batch(x, size), turns, advance) for size in sizes]
    return Cost(detector.forwards, detector.backwards, tuple(timings))


def timed_images(detector: ImageDetector, batches: Sequence[int] | None = None, turns: int = TURNS) -> int:
    """Images in all turns of a measurement, the first call's included."""
    return sum(_sizes(detector, batches)) * (turns + 1) if turns else 0


def _sizes(detector: ImageDetector, batches: Sequence[int] | None) -> tuple[int, ...]:
    return tuple(sorted({1, detector.batch_size})) if batches is None else tuple(batches)


def _timing(detector: ImageDetector, x: Float[Tensor, "n ..."], turns: int, advance: Advance) -> Timing:
    net = detector.net if isinstance(detector.net, nn.Module) else detector.model.logits_of
    placed = detector.model.place(x)

    @torch.no_grad()
    def plain() -> None:
        net(placed)

    def decision() -> None:
        detector.predict(x)

    def turn() -> tuple[tuple[float, float], tuple[float, float]]:
        took = _seconds(plain, placed), _seconds(decision, placed)
        advance(len(x))
        return took

    first = turn()  # it prepares caches
    if first[1][1] > PATIENCE:
        advance(len(x) * turns)
        pairs = [first]
    else:
        pairs = [turn() for _ in range(turns)]
    return Timing(
        len(x),
        statistics.median(one[0] for one, _ in pairs),
        statistics.median(one[0] for _, one in pairs),
        statistics.median(one[0] / max(base[0], 1e-9) for base, one in pairs),
        statistics.median(one[1] for _, one in pairs),
    )


def _seconds(call: Callable[[], None], on: Tensor) -> tuple[float, float]:
    """Processor time and wall-clock time of a call; what is shorter than a millisecond is called often enough."""
    calls, spent = 1, 0.0
    while True:
        began, clock = time.process_time(), time.perf_counter()
        for _ in range(calls):
            call()
        if on.is_cuda:
            torch.cuda.synchronize(on.device)
        spent, elapsed = time.process_time() - began, time.perf_counter() - clock
        if elapsed > 0.02 or calls >= 64:
            return spent / calls, elapsed / calls
        calls *= 4


def _batch(x: Float[Tensor, "n ..."], size: int) -> Float[Tensor, "m ..."]:
    return x[torch.arange(size) % len(x)]
