"""Claim 5: in language models the valley is weaker. Asked of the small model at hand, which cannot settle it."""

from pathlib import Path

import numpy as np

from claims import pictures, valley
from claims.verdicts import Criterion, Outcome, Part, Verdict, share
from claims.walks import World, pattern
from uncannyvalley import attacks
from uncannyvalley.analysis.phase_table import NEEDED
from uncannyvalley.analysis.summary import Figure, interval

PROMPTS = Path(__file__).resolve().parents[1] / "suffixes" / "prompts.csv"
SUFFIX = " ".join(["!"] * 10)
STEPS, PROMPTS_WALKED = 40, 20
MEASURES = (*NEEDED, "loss", "margin")

WEAKER = Criterion("median fall of log κ, images − suffixes, nats", "above", 0.0, ".1f")
GREEDY = Criterion("targets that become the greedy continuation", "above", 0.5, ".0%", counts=False)
RISES = Criterion("such targets whose κ has doubled on the way", "above", 0.5, ".0%", counts=False)

LARGE_ENOUGH = 500_000_000
"""Parameters of the smallest model that may settle the claim; it must also be aligned, that is have a chat template."""


def weaker(suffixes: np.ndarray, images: np.ndarray, parameters: int, chats: bool) -> Part:
    """The claim, from the falls of log κ of each prompt and each image; open on a model that can't settle it."""
    one, other = interval(images, np.median), interval(suffixes, np.median)
    figure = Figure(one.value - other.value, one.low - other.high, one.high - other.low)
    if parameters >= LARGE_ENOUGH and chats:
        return WEAKER.judge(figure)
    rule = f"{WEAKER.rule}, on an aligned model of at least {LARGE_ENOUGH / 1e9:.1f} B parameters; this one has {parameters / 1e9:.5f} B"
    return Part(WEAKER.text, rule, figure, Verdict.OPEN, shown=WEAKER.shown)


def measure(world: World) -> Outcome:
    """GCG on targets of one to four tokens, beside PGD on images."""
    from uncannyvalley import llm

    model = llm.load_language_model(str(world.shared / "models" / "stories260k"), device="cpu")
    prompts = llm.read_prompts(str(PROMPTS)).items[: world.few(PROMPTS_WALKED, 3)]
    steps = world.few(STEPS, 5)
    attack = llm.gcg(search_width=world.few(128, 16), topk=world.few(64, 16))
    tokens = world.kept(
        f"stories260k-gcg-{steps}-{len(prompts)}-{world.few(128, 16)}",
        lambda: llm.record(model, prompts, attack, steps=steps, measures=MEASURES, suffix=SUFFIX),
    )
    suffixes = tokens.prompts()
    network, eps = valley.subject(world)
    pictured = world.walk(network, attacks.pgd(eps=eps, step_size=eps / 16), valley.STEPS)
    ours, theirs = pattern(suffixes), pattern(pictured)
    parameters = sum(one.numel() for one in model.network.parameters())
    parts = [
        weaker(ours.fall, theirs.fall, parameters, model.tokenizer.chat_template is not None),
        GREEDY.judge(share(ours.flipped)),
        RISES.judge(share(ours.doubles[ours.flipped])),
    ]
    room = -suffixes.column("log_gini")[:, 0]
    lines = [
        f"suffixes: {len(prompts)} prompts, median rise {np.median(ours.rise):.2f}, fall {np.median(ours.fall):.2f} nats",
        f"images: median rise {np.median(theirs.rise):.2f}, fall {np.median(theirs.fall):.2f} nats",
        f"room above the start (−log Gini): {np.median(room):.2f} nats: where κ starts nearly as high as it can get, nothing can rise",
    ]

    def draw(path: Path) -> None:
        figure, (left, right) = pictures.sheet(9.6, 3.2, 2)
        for axes, walk, title in (
            (left, suffixes, "stories260k: suffixes"),
            (right, pictured, f"{network}: images"),
        ):
            values = walk.column("log_relative_sharpness")
            right_at_first = walk.column("adversarial")[:, 0] == 0
            pictures.walks(axes, {"median": (values - values[:, :1])[right_at_first]})
            axes.set_title(title)
            axes.set_xlabel("step")
        left.set_ylabel("log κ − start, nats")
        pictures.save(figure, path)

    short = (
        f"suffixes fall by {np.median(ours.fall):.1f} nats, images by {np.median(theirs.fall):.1f}; "
        f"but a model of {parameters / 1e6:.2f} M parameters settles nothing"
    )
    return Outcome(parts, short, lines, draw)
