"""One bit flipped anywhere in the folder of a study: do ``uncanny verify`` and the readers notice?

    python studies/flipped_bits.py --out build/flipped_bits

Two folders, a study of two runs and a run of ``uncanny record``, both with kept logits, images and controls, all their
derived files too. Half of the flips are uniform over the bytes of all files, half go to each file in turn, so small files
get theirs. After each flip ``uncanny verify`` must end with 1 and name the file, and so must the readers of that kind of
file, by an InputError: ``open_study``, ``open_run``, ``.manifest()``, ``.trajectory``, ``.images()``, ``.head()``, ``.controls()``
and the data set over all shards. Files that are derived from the others (figure, page, phases) are verified, not read.
"""

import argparse
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from uncannyvalley.cli.app import app
from uncannyvalley.errors import InputError

PLAN = """shard_size = 4
keep_images = 6
keep = "logits"
[[data]]
data = "digits"
limit = 10
[[attacks]]
attack = "pgd"
eps = [0.2, 0.3]
steps = 4
"""
RECORD = (
    "--eps",
    "0.3",
    "--steps",
    "4",
    "--limit",
    "10",
    "--shard-size",
    "4",
    "--keep-images",
    "6",
    "--keep",
    "features",
)
DERIVED = ("walk.png", "report.html", "phases.parquet")


@dataclass(frozen=True)
class Flip:
    """One bit of one file."""

    file: Path
    byte: int
    bit: int

    @contextmanager
    def done(self) -> Iterator[None]:
        """The bit is flipped inside, and back afterwards."""
        self._turn()
        try:
            yield
        finally:
            self._turn()

    def _turn(self) -> None:
        with self.file.open("r+b") as file:
            file.seek(self.byte)
            (value,) = file.read(1)
            file.seek(self.byte)
            file.write(bytes([value ^ (1 << self.bit)]))


def flips(folder: Path, count: int, draw: random.Random) -> list[Flip]:
    """Half uniform over all bytes; half file by file, there too the first and the last bytes more often."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    sizes = [path.stat().st_size for path in files]
    uniform = draw.choices(files, sizes, k=count // 2)
    in_turn = [files[number % len(files)] for number in range(count - len(uniform))]
    if len(in_turn) < len(files):
        in_turn = draw.sample(files, len(in_turn))
    found = [Flip(path, draw.randrange(path.stat().st_size), draw.randrange(8)) for path in uniform]
    for path in in_turn:
        size = path.stat().st_size
        byte = draw.choice(
            [draw.randrange(size), draw.randrange(min(16, size)), size - 1 - draw.randrange(min(16, size))]
        )
        found.append(Flip(path, byte, draw.randrange(8)))
    return found


def run_of(file: Path) -> Path:
    """The run folder that a file belongs to: the nearest one above it that has a plan."""
    return next(folder for folder in file.parents if (folder / "plan.toml").exists())


def readers_of(root: Path, file: Path) -> dict[str, Callable[[], object]]:
    """By name, what reads this file when somebody asks for the folder's content; nothing for derived files."""
    from uncannyvalley.run.folder import open_run
    from uncannyvalley.study.dataset import dataset_of
    from uncannyvalley.study.folder import open_study

    run = run_of(file)
    name = file.relative_to(run).parts[0]
    if file.name in DERIVED:
        return {}
    if name == "plan.toml":
        if run == root and not (run / "shards").is_dir():
            return {"open_study": lambda: open_study(root)}
        found: dict[str, Callable[[], object]] = {"open_run": lambda: open_run(run)}
    elif name == "shards":
        found = {
            ".trajectory": lambda: open_run(run).trajectory,
            ".finished_shards()": lambda: open_run(run).finished_shards(),
        }
        if run.parent.name != "controls":
            found["dataset_of"] = lambda: dataset_of(open_study(root)).to_table()
    elif name == "images":
        found = {".images()": lambda: open_run(run).images()}
    elif name == "head.safetensors":
        found = {".head()": lambda: open_run(run).head()}
    else:
        found = {
            ".manifest()": lambda: open_run(run).manifest(),
            ".missing_shards()": lambda: open_run(run).missing_shards(),
        }
    if run.parent.name == "controls" and name in ("shards", "plan.toml"):
        found[".controls()"] = lambda: open_run(run.parents[1]).controls()
    return found


def unnoticed(root: Path, file: Path, verify: Callable[[Path], list[str]]) -> list[str]:
    """Who reads the damaged file, or checks the folder, without a word about it."""
    found = []
    if not any(file.name in line for line in verify(root)):
        found.append("verify")
    for name, reader in readers_of(root, file).items():
        try:
            reader()
        except InputError as error:
            if file.name not in str(error):
                found.append(f"{name} says {error}")
        except Exception as error:  # a reader that breaks has not reported anything
            found.append(f"{name} broke: {type(error).__name__} {error}")
        else:
            found.append(name)
    return found


def verify_lines(root: Path) -> list[str]:
    """What ``uncanny verify`` prints, one fault a line; nothing where it does not end with 1."""
    ended = CliRunner().invoke(app, ["verify", str(root)])
    return ended.output.splitlines() if ended.exit_code == 1 else []


def make_folders(out: Path) -> list[Path]:
    """A study of two runs, and a run of ``uncanny record``, both small, with everything that a folder can hold."""
    plan, study, run = out / "plan.toml", out / "study", out / "run"
    plan.write_text(PLAN)
    for arguments in (["run", str(plan), "--out", str(study)], ["record", *RECORD, "--out", str(run)]):
        ended = CliRunner().invoke(app, arguments)
        if ended.exit_code:
            raise RuntimeError(ended.output)
    return [study, run]


def kind_of(file: Path, root: Path) -> str:
    """What the table counts together."""
    run = run_of(file)
    if run == root and not (root / "shards").is_dir():
        return f"{file.name} of the study"
    name = file.relative_to(run).parts[0]
    return f"{name} of a control" if run.parent.name == "controls" else name


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/flipped_bits"))
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    draw = random.Random(given.seed)
    folders = make_folders(given.out)
    flipped, verified, read, silent = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for number, root in enumerate(folders):
        if lines := verify_lines(root):
            raise RuntimeError(f"{root} is not sound to begin with: {lines}")
        share = given.flips // len(folders) + (number < given.flips % len(folders))
        for flip in flips(root, share, draw):
            with flip.done():
                kind, missed = kind_of(flip.file, root), unnoticed(root, flip.file, verify_lines)
            flipped[kind] += 1
            verified[kind] += "verify" not in missed
            readers = len(readers_of(root, flip.file))
            read[kind] += readers
            silent[kind] += len([one for one in missed if one != "verify"])
            for one in missed:
                print(
                    f"NOT NOTICED: {flip.file.relative_to(root)}, bit {flip.bit} of byte {flip.byte}: {one}"
                )
        if lines := verify_lines(root):
            raise RuntimeError(f"{root} is not sound in the end: {lines}")
    print(f"{'file':28}{'flips':>7}{'verify':>8}{'readers':>9}{'noticed':>9}")
    for kind in sorted(flipped):
        print(f"{kind:28}{flipped[kind]:7}{verified[kind]:8}{read[kind]:9}{read[kind] - silent[kind]:9}")
    counts = [sum(one.values()) for one in (flipped, verified, read)]
    print(f"{'all':28}{counts[0]:7}{counts[1]:8}{counts[2]:9}{counts[2] - sum(silent.values()):9}")


if __name__ == "__main__":
    main()
