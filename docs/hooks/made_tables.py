"""The tables of measures, attacks, objectives, models and data, made at build from the package's registries."""

from collections.abc import Callable

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from written import first_sentence, named, table


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page."""
    files.append(File.generated(config, "reference/measures.md", content=_tables()))
    return files


def _tables() -> str:
    return "\n".join(
        [
            "---", "hide: [toc]", "---", "# Measures, attacks, objectives", "",
            "Made from the registries of the package when this site was built; `uncanny list` prints the same names.", "",
            "## Measures at the head", "",
            "Each is a function of a [probe](../api/vocabulary.md): one number for each image at each step, read off the attack's own "
            "forward. *Order* is the order of the derivative of the loss that it speaks of. *Reads* names a gradient where the forward "
            "is not enough; attacks that climb the loss have it already, others pay one backward for all measures together. "
            "*Default* says whether it is recorded unless measures are named; the *version* rises whenever values change.", "",
            *table(["name", "unit", "order", "reads", "default", "version", "formula and source"], _measures()), "",
            "## Quantities of any layer", "",
            "In Python `curvature(net, x, y, layer=…, quantity=…)`; in a recorded walk `log_NAME@LAYER`, as "
            "`log_relative_sharpness@layer2.0.conv1`.", "",
            *table(["name", "unit", "order", "formula"], _quantities()), "",
            "## Attacks", "", "[How they differ](../attacks.md).", "",
            *table(["name", "recorded", "what it is"], _attacks()), "",
            "## Objectives of training", "", "Those with a + join any other: [training](../training.md).", "",
            *table(["name", "what it descends, its arguments and passes"], _objectives()), "",
            "## Models", "", *table(["form", "what it is"], _kinds("zoo")), "",
            "## Data", "", *table(["form", "what it is"], _kinds("data")), "",
        ]
    )  # fmt: skip


def _measures() -> list[list[str]]:
    from uncannyvalley.measures import available

    return [
        [
            f"`{one.name}`", one.unit, str(one.order), "∂ log ℓ/∂x" if one.needs else "", "yes" if one.default else "no",
            str(one.version), " ".join(filter(None, [one.description, one.reference and f"({one.reference})"])),
        ]
        for one in available().values()
    ]  # fmt: skip


def _quantities() -> list[list[str]]:
    from uncannyvalley.derivatives.quantities import QUANTITIES

    return [[f"`{one.name}`", one.unit, str(one.order), one.formula] for one in QUANTITIES.values()]


def _attacks() -> list[list[str]]:
    from uncannyvalley.adversaries import ADVERSARIES
    from uncannyvalley.attacks import ATTACKS
    from uncannyvalley.llm.searching.controls import random_tokens, soft_prompt
    from uncannyvalley.llm.searching.coordinate_gradient import gcg

    kinds: list[tuple[str, dict[str, Callable[..., object]]]] = [
        ("every step", dict(ATTACKS)),
        ("every query, extra `attacks`", dict(ADVERSARIES)),
        ("every step of a suffix, extra `hf`", {"gcg": gcg, "random-tokens": random_tokens, "soft-prompt": soft_prompt}),
    ]  # fmt: skip
    return [
        [f"`{name}`", recorded, first_sentence(make)]
        for recorded, makers in kinds
        for name, make in makers.items()
    ]


def _objectives() -> list[list[str]]:
    from uncannyvalley.train.objectives import KINDS

    return [[f"`{name}`", what] for name, what in KINDS.items()]


def _kinds(room: str) -> list[list[str]]:
    return [[f"`{form}`", what] for form, what in named(room).KINDS.items()]
