"""What the pages name and a reader brings along: a model file, images, prompts, a judge. Made when first named.

Everything is tiny. A hub's name stands for a folder of that name with a random network in it, which the libraries
take as they take the hub's.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from documented import hub
from documented.pictures import MODEL, png, smooth_images

REPOSITORY = Path(__file__).resolve().parents[2]
JUDGE = '''"""A judge of answers: (goal, completion) → bool."""


def judge(goal: str, completion: str) -> bool:
    return len(completion.split()) > 3
'''


class World:
    """The folder of a page and what was made in it so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: set[str] = set()

    def make_for(self, source: str) -> None:
        """Make all that ``source`` names and that is not there yet."""
        for name, make in _MAKERS.items():
            if name in source and name not in self._made:
                self._made.add(name)
                make(self.folder / name.removeprefix("hf:").removeprefix("hf-lm:"))


def _text(content: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(content)

    return write


def _parquet(count: int) -> Callable[[Path], None]:
    """A Parquet file in the Hugging Face image layout."""

    def write(path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pixels, labels = smooth_images(count)
        table = pa.table({"image": [{"bytes": png(one), "path": None} for one in pixels], "label": labels})
        features = {
            "image": {"_type": "Image"},
            "label": {"_type": "ClassLabel", "names": list("abcdefghij")},
        }
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.replace_schema_metadata(metadata), path)

    return write


def _image_folders(path: Path) -> None:
    """Image files, one folder a class."""
    pixels, labels = smooth_images(16)
    for number, (one, label) in enumerate(zip(pixels, labels, strict=True)):
        (path / f"class_{label}").mkdir(parents=True, exist_ok=True)
        (path / f"class_{label}" / f"{number}.png").write_bytes(png(one))


def _loose_images(path: Path) -> None:
    path.mkdir()
    for number, one in enumerate(smooth_images(40)[0]):
        (path / f"{number}.png").write_bytes(png(one))


_SMALL_PLANS = {
    "seeds = [0, 1, 2]": "seeds = [0]",
    "seeds = [0, 1]": "seeds = [0]",
    'eps = ["32/255", 0.3]': 'eps = ["32/255"]',
    'data = "digits:train"': 'data = "digits:train"\nlimit = 192',
}


def _plan_of_the_docs(path: Path) -> None:
    """A plan file of docs/, made small as the blocks are."""
    from documented.sizes import is_quick, small_source

    path.parent.mkdir(exist_ok=True)
    source = small_source((REPOSITORY / "docs" / path.name).read_text())
    for large, small in _SMALL_PLANS.items() if is_quick() else ():
        source = source.replace(large, small)
    path.write_text(source)


def _shared(_: Path) -> None:
    """``../shared``: the networks and images that some pages speak of, where they are."""
    folder = Path(os.environ.get("UNCANNY_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        reason = f"no shared networks and images at {folder} (set UNCANNY_SHARED)"
        (pytest.fail if os.environ.get("UNCANNY_REQUIRE_SHARED") else pytest.skip)(reason)
    Path("../shared").symlink_to(folder.resolve())


_MAKERS: dict[str, Callable[[Path], None]] = {
    "my_model.py": _text(MODEL),
    "my_judge.py": _text(JUDGE),
    "images/": _image_folders,
    "incoming/": _loose_images,
    "traffic/": _loose_images,
    "train.parquet": _parquet(80),
    "clean.parquet": _parquet(60),
    "test.parquet": _parquet(24),
    "hf:cifar10": hub.image_data,
    "hf:ORG/NAME": hub.image_classifier,
    "hf:ORG/RESNET": hub.image_classifier,
    "hf-lm:ORG/NAME": hub.language_model,
    "hf-lm:Qwen/Qwen2.5-0.5B-Instruct": hub.language_model,
    "hf-lm:Qwen/Qwen2.5-1.5B-Instruct": hub.language_model,
    "harmful_behaviors.csv": hub.prompts,
    "behaviors.csv": hub.behaviours,
    "targets.json": hub.targets,
    "docs/example-plan.toml": _plan_of_the_docs,
    "docs/example-trainings.toml": _plan_of_the_docs,
    "../shared": _shared,
}
"""What a page may name → how it is made. Names of a hub that are both networks and language models must differ on a page."""
