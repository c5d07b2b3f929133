"""The pages of the API, made at build from docstrings. A public name that they lack is an error of the build."""

import inspect
from collections.abc import Iterable

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from written import cell, first_sentence, named

PAGES: dict[str, tuple[str, list[str]]] = {
    "recording": (
        "Recording a walk",
        ["split", "SplitModel", "record", "observe", "watch", "Trajectory", "open_run", "replay"],
    ),
    "reading": (
        "Reading walks and studies",
        ["phases", "diagnose", "open_study", "dataset_of", "results", "verify", "study.tracking.to_wandb",
         "study.tracking.to_mlflow"],
    ),
    "curvature": ("Any layer, any order", ["curvature", "Estimate", "directional_derivative"]),
    "certificates": (
        "What is proved",
        ["certify", "Bound", "lipschitz_bound", "sampled_lipschitz", "attacked_radius", "valley_floor"],
    ),
    "detection": (
        "Detection",
        ["ImageDetector", "SharpnessDetector", "detect.serving.module.DetectorModule",
         "detect.serving.policy.Policy", "detect.serving.monitor.Monitor"],
    ),
    "training": ("Training", ["fit", "Recipe", "train.objectives"]),
    "vocabulary": (
        "Attacks and measures of your own", ["Probe", "Attack", "Measure", "measures", "objectives", "InputError"]
    ),
    "attacks": ("Attacks", ["attacks"]),
    "adversaries": ("Attacks of other libraries", ["adversaries"]),
    "names": ("Models and data by name", ["zoo", "data"]),
    "llm": ("Language models", ["llm"]),
}  # fmt: skip
"""Pages of the API: file name → title and what is on it, by its name below ``uncannyvalley``. A room stands for all it exports."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    import uncannyvalley

    exported = set(uncannyvalley.__all__) - {"__version__"}
    if missing := sorted(exported - {name for _, names in PAGES.values() for name in names}):
        raise PluginError(
            f"no API page has {', '.join(missing)}: add them to PAGES in docs/hooks/made_api.py"
        )
    files.append(File.generated(config, "api/index.md", content=_overview()))
    for page, (title, names) in PAGES.items():
        files.append(File.generated(config, f"api/{page}.md", content=_api_page(title, names)))
    return files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The entry ``api/`` of the navigation becomes all pages of the API."""
    pages = ["api/index.md", *({title: f"api/{page}.md"} for page, (title, _) in PAGES.items())]
    for part in config.nav or []:
        for entry in next(iter(part.values())):
            if isinstance(entry, dict) and entry.get("Python") == "api/":
                entry["Python"] = pages
    return config


def _members(room: object) -> list[str]:
    """What a room exports and documents: the functions and classes of ``__all__``, else those that are defined in it."""
    exported = getattr(room, "__all__", None)
    if exported is None:
        own = room.__name__
        exported = [
            name
            for name, value in vars(room).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == own
        ]
    return [
        name
        for name in exported
        if callable(getattr(room, name)) and not inspect.ismodule(getattr(room, name))
    ]


def _entries(names: Iterable[str]) -> list[tuple[str, object]]:
    """Public name and object of all that stands on a page; rooms are opened."""
    entries: list[tuple[str, object]] = []
    for name in names:
        found = named(name)
        if inspect.ismodule(found):
            entries += [(f"{name}.{member}", getattr(found, member)) for member in _members(found)]
        else:
            entries.append((name, found))
    return entries


def _overview() -> str:
    lines = [
        "# Python", "",
        "`import uncannyvalley` imports no torch; names are loaded when first used. Errors a user can mend are "
        "`InputError`: what was expected, what came, what to do.", "",
    ]  # fmt: skip
    for page, (title, names) in PAGES.items():
        lines += [f"## [{title}]({page}.md)", "", "| name | what it is |", "|---|---|"]
        for name, found in _entries(names):
            lines.append(f"| [`{name}`]({page}.md#{_home(found)}) | {cell(first_sentence(found))} |")
        lines.append("")
    return "\n".join(lines)


def _api_page(title: str, names: list[str]) -> str:
    parts = [f"# {title}"]
    for name, found in _entries(names):
        parts.append(
            f"::: {_home(found)}\n    options:\n      heading: uncannyvalley.{name}\n      toc_label: {name}"
        )
    return "\n\n".join(parts) + "\n"


def _home(found: object) -> str:
    return f"{found.__module__}.{found.__qualname__}"
