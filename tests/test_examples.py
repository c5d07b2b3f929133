"""The examples as a user runs them, in their small form: what each prints must show what its page says it shows."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("[0-9]*.py"))

Run = Callable[..., "Printed"]


class Printed(str):
    """What an example printed, read by lines."""

    def row(self, start: str) -> list[float]:
        """The numbers of the first line that begins with ``start``; percentages as fractions."""
        line = next(line for line in self.splitlines() if line.startswith(start))
        found = re.findall(r"(?<![\w.])([-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?)(%?)", line[len(start) :])
        return [float(number) / (100 if percent else 1) for number, percent in found]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs an example by its number; the figure that it names must be there."""

    def started(number: str, *options: str, figure: bool = True) -> Printed:
        script = next(EXAMPLES / name for name in SCRIPTS if name.startswith(number))
        done = start(script, *options, "--out", str(tmp_path))
        assert done.returncode == 0, done.stderr
        if figure:
            assert (tmp_path / f"{script.stem}.png").read_bytes().startswith(b"\x89PNG")
        return Printed(done.stdout)

    return started


def start(script: Path, *options: str) -> subprocess.CompletedProcess[str]:
    surroundings = os.environ | {"UNCANNY_QUICK": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *options]
    return subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)


def test_first_walk(run: Run, tmp_path: Path) -> None:
    printed = run("01")
    height = [printed.row("height, nats")[place] for place in (0, 3, 6)]
    assert height[0] > 2 > 1 > height[1] > height[2] == 0  # pgd, noise, assist
    flipped = [printed.row("label flipped")[place] for place in (0, 3, 6)]
    assert flipped[0] > 0.95 > 0.1 > flipped[1] >= flipped[2] == 0
    assert printed.row("ridge   ")[1] > printed.row("clean   ")[1] > printed.row("valley  ")[1]
    assert printed.row("Largest difference of clean losses between both ways:")[0] < 1e-5
    assert "log κ" in (tmp_path / "first_walk" / "report.html").read_text(encoding="utf-8")


def test_two_dimensional_world(run: Run) -> None:
    printed = run("02")
    height, flipped = printed.row("height, nats"), printed.row("label flipped")
    assert height[0] > height[3] + 2 > height[6] + 2 == 2  # pgd, noise, assist
    assert flipped[0] > 0.9 > 0.5 > flipped[3] > flipped[6] == 0
    # far from the boundary log κ is the logit gap, the norm and one number of the head
    assert printed.row("  32")[2] == pytest.approx(printed.row("log|w_0 − w_1|² of the head:")[0], abs=0.05)


@pytest.mark.shared
def test_small_cnn_on_mnist(run: Run, shared: Path) -> None:
    printed = run("03", "--shared", str(shared))
    median = {name: printed.row(name)[2] for name in ("clean", "noise", "fgsm", "pgd")}
    assert median["fgsm"] > median["clean"] + 1  # one step ends on the ridge
    assert median["pgd"] < median["fgsm"] - 1  # many steps go on into the valley
    assert abs(median["noise"] - median["clean"]) < median["fgsm"] - median["clean"]
    assert printed.row("noise")[0] < 0.15 < 0.9 < printed.row("pgd")[0]


@pytest.mark.shared
def test_resnet_on_cifar_with_detector(run: Run, shared: Path) -> None:
    printed = run("04", "--shared", str(shared))
    gini, kappa, copies = (printed.row(name) for name in ("log Gini alone", "log κ alone", "four forwards"))
    # AUROC of fgsm, pgd, pgd stopped at columns 1, 3, 5
    # κ at the head is confidence
    assert max(abs(gini[column] - kappa[column]) for column in (1, 3, 5)) < 0.05
    assert min(copies[1], copies[5]) > 0.9 > max(gini[1], gini[5])
    assert copies[0] <= 0.15  # 48 clean images under a promise of 5 %
    before, after = printed.row(" 8 steps  ")
    assert after < before - 10


def test_cost_of_third_order(run: Run) -> None:
    printed = run("05")
    head = printed.row("walk + second and third order at the head")
    inside = [printed.row(f"{order} derivative along")[0] for order in ("first", "second", "third")]
    assert head[0] < 2 < inside[2]  # closed forms are cheap, nested derivatives are not
    assert inside[0] < inside[1] < inside[2]


def test_your_own_attack(run: Run) -> None:
    printed = run("06")
    pgd, sharpest, search = (printed.row(name) for name in ("pgd", "sharpest", "random search"))
    assert sharpest[3] > 1 > -0.5 > pgd[3]  # the climber stays on the ridge that PGD leaves
    assert sharpest[0] > 0.9 > 0.75 > sharpest[1]  # it crosses the boundary, and back
    assert search[2] > 2  # a search without gradients climbs the ridge too
    asked, untold = printed.row("Of")
    assert untold < 0.01 * asked


def test_your_own_measure(run: Run) -> None:
    printed = run("07")
    assert printed.row("Rank correlation over all images and steps:")[0] < -0.5
    assert printed.row("Steps between the largest κ and the nearest boundary: median")[1:] > [0, 0.8]


def test_inner_layers(run: Run) -> None:
    printed = run("08")
    first, head = printed.row("0 "), printed.row("20 ")
    for layer in (first, head):
        assert layer[1] > layer[0] > layer[2]  # κ itself: ridge above clean above the valley
    assert first[7] < 0 < head[7]  # per unit of uncertainty: falls at the input, rises at the head
    assert "by class gradients" in printed


def test_certificates(run: Run) -> None:
    printed = run("09")
    plain, orthogonal = printed.row("plain"), printed.row("orthogonal")
    assert plain[5] == orthogonal[5] == 0  # no promise was broken
    assert orthogonal[1] == pytest.approx(1, abs=0.01)
    assert orthogonal[4] > 0.8 > 0.6 > plain[4] > 0.05
    assert all("bound passed 0 times" in line for line in printed.splitlines() if line.startswith("Loss of"))


def test_robust_training(run: Run) -> None:
    pytest.importorskip("lightning_fabric")
    printed = run("10")
    erm, robust = printed.row("erm   "), printed.row("pgd-at   ")
    assert robust[0] > erm[0] + 0.05  # the ridge moves away,
    assert abs(robust[0] - robust[1]) < 0.05  # and goes where the flip goes
    assert robust[4] > 0.1  # but some images still find the valley behind it


@pytest.mark.shared
def test_suffix_of_a_language_model(run: Run, shared: Path) -> None:
    pytest.importorskip("transformers")
    printed = run("11", "--shared", str(shared))
    gcg, soft, random = (printed.row(name) for name in ("gcg", "soft-prompt", "random-tokens"))
    assert soft[2] < gcg[2] < gcg[1] == soft[1] == random[1]  # losses at the end, and at the common start
    assert soft[4] < gcg[4] < random[4] + 0.2
    assert "Best suffix of the first prompt" in printed


def test_replay_another_head(run: Run) -> None:
    printed = run("12")
    recorded, hot, cold = (printed.row(name) for name in ("as recorded", "T = 4", "T = 0.5"))
    assert cold[1] > recorded[1] > hot[1]  # dividing the head flattens the ridge
    assert cold[2] > recorded[2] > 0 > hot[2]  # and fills the valley
    assert printed.row("log κ of the clean images, which no path changes: apart by at most")[0] < 1e-5
    assert printed.row("Loss at the end, replayed against attacked again: apart by a median of")[1] > 1e-3


def test_a_study_of_runs(run: Run) -> None:
    pytest.importorskip("pandas")
    printed = run("13")
    assert "nothing to record" in printed
    near, far = printed.row("0.1"), printed.row("0.4")
    assert min(far[:2]) > 0 > max(near[:2])  # depth: a valley takes room
    assert printed.row("Sure of a wrong class, at more than 99 %:")[0] > 100


def test_every_example_says_what_it_asks() -> None:
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    tested = Path(__file__).read_text(encoding="utf-8")
    for name in SCRIPTS:
        text = (EXAMPLES / name).read_text(encoding="utf-8")
        first = text.splitlines()[0]
        assert re.match(rf'"""Example {int(name[:2])}\. .*\?', first), first
        assert f"python examples/{name}" in text, f"{name} does not say how it is run"
        assert name in index, f"examples/README.md lacks {name}"
        assert f'run("{name[:2]}"' in tested, f"no test runs {name}"


@pytest.mark.parametrize("number", ["03", "04", "11"])
def test_missing_data_is_one_line(number: str, tmp_path: Path) -> None:
    script = next(EXAMPLES / name for name in SCRIPTS if name.startswith(number))
    done = start(script, "--shared", str(tmp_path / "nowhere"), "--out", str(tmp_path))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: expected ")
    assert "nowhere" in line
    assert "UNCANNY_SHARED" in line
    assert not list(tmp_path.iterdir())
