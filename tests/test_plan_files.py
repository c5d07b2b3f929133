"""Plan files: the grid that they span, what its points are called, and what is said about mistakes."""

import itertools
import os
import re
import textwrap
import tomllib
from itertools import product
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from plan_texts import NAME, refusal_of
from uncannyvalley.adversaries import ADVERSARIES
from uncannyvalley.attacks import ATTACKS
from uncannyvalley.errors import InputError
from uncannyvalley.measures import resolve
from uncannyvalley.run.request import Request, make_work
from uncannyvalley.study.plan_file.grid import AXES, Cell, Grid, parse_grid, read_grid
from uncannyvalley.study.plan_file.labels import LONGEST, label_of, number, safe
from uncannyvalley.study.plan_file.lines import lines_of

SAFE = re.compile(r"[A-Za-z0-9._+-]{1,80}")
DOCS = Path(__file__).resolve().parents[1] / "docs"


def grid_of(text: str, folder: Path = Path("nowhere")) -> Grid:
    return parse_grid(textwrap.dedent(text), NAME, folder)


def refused(text: str) -> list[str]:
    return refusal_of(lambda: grid_of(text))


def test_a_plan_of_one_line_is_what_record_does_by_default() -> None:
    (cell,) = grid_of("seeds = [0]").cells()
    assert cell == Cell(
        {"model": "demo", "data": "digits", "attack": "pgd", "measures": "all", "seed": "0"}, Request(), True
    )
    assert cell.place == "model=demo/data=digits/attack=pgd/measures=all/seed=0"
    assert tuple(cell.labels) == AXES


def test_every_setting_reaches_the_request() -> None:
    (cell,) = grid_of(
        """
        seeds = [7]
        shard_size = 64
        controls = false
        keep_images = 0
        keep = "logits"
        every = 2
        batch_size = 32
        dtype = "float64"
        device = "cpu"
        prepare = false
        compile = true

        [[models]]
        name = "mine"
        model = "net.py:build"
        weights = "net.pt"
        arguments = {width = 16, deep = true, rate = 0.5, text = "a"}
        head = "fc"

        [[data]]
        data = "npz:images.npz"
        limit = 512

        [[attacks]]
        attack = "momentum"
        norm = "l2"
        eps = "1/2"
        step_size = 0.1
        steps = 20
        random_start = true
        target = 3
        restarts = 2
        keep = "features"
        arguments = {decay = 0.9}

        [[measures]]
        name = "two"
        measures = ["loss", "log_trace@fc", "loss"]
        """
    ).cells()
    assert not cell.controls
    label = "momentum-l2-0.5-20steps-step_0.1-random-to_3-2restarts-keep_features-decay_0.9"
    assert cell.place == f"model=mine/data=images-512/attack={label}/measures=two/seed=7"
    assert cell.request == Request(
        model="net.py:build", data="npz:images.npz", attack="momentum", attack_arguments={"decay": "0.9"}, norm="l2", eps=0.5, step_size=0.1,
        steps=20, random_start=True, target="3", restarts=2, seed=7, every=2, measures=["loss", "log_trace@fc"], limit=512, batch_size=32,
        keep="features", keep_images=0, head="fc", device="cpu", dtype="float64", prepare=False, compile=True, shard_examples=64,
        model_arguments={"width": "16", "deep": "true", "rate": "0.5", "text": "a"}, weights="net.pt",
    )  # fmt: skip


def test_lists_span_the_grid_model_by_model() -> None:
    grid = grid_of(
        """
        seeds = {first = 3, count = 2}
        models = ["demo", "family:resnet18"]
        [[attacks]]
        attack = ["pgd", "momentum"]
        eps = ["2/255", 0.5]
        [[attacks]]
        name = "own"
        attack = "evading"
        arguments = {low = [0, 1], score = "margin"}
        """
    )
    cells = grid.cells()
    attacks = [
        "pgd-2_255", "pgd-0.5", "momentum-2_255", "momentum-0.5", "own-low_0", "own-low_1"
    ]  # fmt: skip
    assert [tuple(cell.labels.values()) for cell in cells] == [
        (model, "digits", attack, "all", seed)
        for model, attack, seed in product(["demo", "resnet18"], attacks, ["3", "4"])
    ]
    assert len(grid) == len(cells) == 24
    assert cells[0].request.eps == 2 / 255
    assert [cell.request.seed for cell in cells[:2]] == [3, 4]
    assert cells[11].request.attack_arguments == {"low": "1", "score": "margin"}


def test_measures_of_a_set() -> None:
    closed_form = [one.name for one in resolve(None)]
    of_forwards = [one.name for one in resolve(None) if not one.needs]
    grid = grid_of(
        """
        attacks = ["pgd", "square"]
        [[measures]]
        measures = "all"
        [[measures]]
        measures = ["margin", "all", "log_trace@20"]
        """
    )
    assert [cell.labels["measures"] for cell in grid.cells()] == ["all", "margin+all+log_trace_20"] * 2
    first, second, third, fourth = (cell.request.measures for cell in grid.cells())
    assert first is third is None
    assert second == ["margin", *(name for name in closed_form if name != "margin"), "log_trace@20"]
    assert fourth == ["margin", *(name for name in of_forwards if name != "margin"), "log_trace@20"]
    (shorthand,) = grid_of('measures = ["loss", "margin"]').cells()
    assert shorthand.request.measures == ["loss", "margin"]
    assert shorthand.labels["measures"] == "loss+margin"


def test_paths_are_read_from_the_plans_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans, elsewhere = tmp_path / "plans", tmp_path / "elsewhere"
    for folder in (plans / "classes", plans / "c10c", plans / "hub" / "set", elsewhere):
        folder.mkdir(parents=True)
    for file in (
        plans / "net.py",
        plans / "w.pt",
        plans / "a.parquet",
        elsewhere / "a.parquet",
        elsewhere / "b.npz",
    ):
        file.write_text("")
    monkeypatch.chdir(elsewhere)
    (plans / "plan.toml").write_text(
        textwrap.dedent(
            """
            data = [
                "parquet:a.parquet", "npz:b.npz", "folder:classes", "corruptions:c10c:fog:3", "hf:hub/set:test", "hf:cifar10:test",
                "torchvision:CIFAR10:classes", "digits", "npz:gone.npz"
            ]
            [[models]]
            model = ["net.py:build", "hf:hub/set", "demo", "timm:vit.py"]
            [[models]]
            model = "gone.py:build"
            weights = "w.pt"
            """
        )
    )
    grid = read_grid(Path("../plans/plan.toml"))
    assert [one.settings["data"] for one in grid.choices["data"]] == [
        f"parquet:{plans}/a.parquet", f"npz:{elsewhere}/b.npz", f"folder:{plans}/classes", f"corruptions:{plans}/c10c:fog:3",
        f"hf:{plans}/hub/set:test", "hf:cifar10:test", f"torchvision:CIFAR10:{plans}/classes", "digits", "npz:gone.npz",
    ]  # fmt: skip
    assert [one.settings["model"] for one in grid.choices["model"]] == [
        f"{plans}/net.py:build", f"hf:{plans}/hub/set", "demo", "timm:vit.py", "gone.py:build"
    ]  # fmt: skip
    assert grid.choices["model"][-1].settings["weights"] == f"{plans}/w.pt"
    assert [one.label for one in grid.choices["model"]] == ["net-build", "set", "demo", "vit", "gone-build-w"]
    again = parse_grid(grid.to_toml(), "copy", tmp_path)
    assert again.cells() == grid.cells()


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=100)
LENGTHS = st.floats(1e-9, 10) | st.builds(lambda above: f"{above}/255", st.integers(1, 300))
PLANS = st.fixed_dictionaries(
    {
        "seeds": st.lists(st.integers(0, 2**40), min_size=1, max_size=4, unique=True)
        | st.builds(lambda first, count: {"first": first, "count": count}, st.integers(0, 9), st.integers(1, 9)),
        "models": st.lists(NAMES, min_size=1, max_size=3, unique=True),
        "attacks": st.lists(
            st.fixed_dictionaries(
                {"attack": st.lists(st.sampled_from(["pgd", "momentum", "early"]), min_size=1, unique=True)},
                optional={
                    "eps": LENGTHS | st.lists(LENGTHS, min_size=1, max_size=3),
                    "steps": st.lists(st.integers(1, 50), min_size=1, max_size=3, unique=True),
                    "random_start": st.booleans() | st.just([True, False]),
                    "norm": st.just("l2"),
                },
            ),
            min_size=1, max_size=3,
        ),
    },
    optional={
        "measures": st.lists(
            st.fixed_dictionaries(
                {"measures": st.lists(st.sampled_from(["all", "loss", "log_trace@a/b"]), min_size=1)},
                optional={"name": st.sampled_from("abc")},
            ),
            min_size=1, max_size=2,
        ),
        "shard_size": st.integers(1, 500), "every": st.integers(1, 5), "controls": st.booleans()},
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(PLANS)
def test_any_plan_spans_its_product_under_labels_of_its_own(plan: dict) -> None:
    text = tomli_w.dumps(plan)
    try:
        grid = parse_grid(text, "PLAN", Path("nowhere"))
    except InputError as error:
        called_alike = [" already" in line for line in str(error).split("\n") if "more" not in line]
        reject() if all(called_alike) else pytest.fail(str(error))
    cells = grid.cells()

    def spans(value: object) -> int:
        return len(value) if isinstance(value, list) else 1

    attacks = 0
    for attack in plan["attacks"]:
        size = 1
        for value in attack.values():
            size *= spans(value)
        attacks += size
    seeds = plan["seeds"]["count"] if isinstance(plan["seeds"], dict) else len(plan["seeds"])
    sets = len(plan.get("measures", [()]))
    assert len(cells) == len(grid) == len(plan["models"]) * attacks * sets * seeds
    assert len({cell.place.casefold() for cell in cells}) == len(cells)
    assert all(SAFE.fullmatch(label) for cell in cells for label in cell.labels.values())
    order = [cell.labels["model"] for cell in cells]
    assert order == sorted(order, key=[one.label for one in grid.choices["model"]].index)
    again = parse_grid(grid.to_toml(), "copy", Path("elsewhere"))
    assert again.cells() == cells
    assert again.to_toml() == grid.to_toml()


@given(st.floats(1e-12, 1e12), st.floats(1e-12, 1e12))
def test_different_numbers_have_different_labels(one: float, other: float) -> None:
    for value in (one, other, one / 255):
        assert SAFE.fullmatch(number(value))
    assert (number(one) == number(other)) == (one == other)


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({"attack": "pgd", "norm": "linf", "eps": 8 / 255, "steps": 20}, "pgd-linf-8_255-20steps"),
        ({"attack": "pgd", "eps": 0.5 / 255}, "pgd-0.5_255"),
        ({"attack": "pgd", "eps": 0.1234567}, "pgd-0.1234567"),
        ({"attack": "pgd", "eps": 17 / 255, "random_start": False, "target": "least-likely"}, "pgd-17_255-clean-to_least-likely"),
        ({"model": "hf:ORG/Net-50", "weights": "a/b/best.pt", "head": "net.fc"}, "Net-50-best-head_net.fc"),
        ({"model": "nets/resnet.py:resnet", "arguments.width": "16"}, "resnet-width_16"),
        ({"model": "robustbench:Carmon2019:cifar10:Linf"}, "Carmon2019-cifar10-Linf"),
        ({"data": "corruptions:data/CIFAR-10-C:fog:3", "limit": 100}, "CIFAR-10-C-fog-3-100"),
        ({"data": "folder:Bilder für Tests/"}, "Bilder_fur_Tests"),
        ({"data": "digits:train"}, "digits-train"),
        ({"measures": ["log_trace@layer1.0"]}, "log_trace_layer1.0"),
    ],
)  # fmt: skip
def test_labels(settings: dict, label: str) -> None:
    assert label_of(settings, None, set(settings)) == label
    assert label_of(settings, "name", set()) == "name"


def test_long_and_empty_labels_stay_apart() -> None:
    long = [label_of({"model": "family:" + "x" * 100 + end}, None, ()) for end in "ab"]
    assert len(set(long)) == 2
    assert all(len(label) == LONGEST for label in long)
    assert label_of({"model": "模型"}, None, ()) != label_of({"model": "模"}, None, ())
    assert safe("ä b/c@d") == "a_b_c_d"


def test_a_label_does_not_change_when_other_entries_come() -> None:
    def labels(text: str) -> list[str]:
        return [one.label for one in grid_of(text).choices["attack"]]

    alone = labels('[[attacks]]\nname = "a"\nattack = "pgd"\neps = [0.1]\n')
    more = labels(
        'attacks = [{name = "a", attack = "pgd", eps = [0.5, 0.1]}, {attack = "pgd", eps = 0.1}, "pgd"]'
    )
    assert alone == ["a-0.1"]
    assert more == ["a-0.5", "a-0.1", "pgd-0.1", "pgd"]


ATTACK_NAMES = ", ".join(sorted([*ATTACKS, *ADVERSARIES]))
ATTACK_KEYS = (
    "arguments, attack, eps, every, keep, name, norm, random_start, restarts, step_size, steps, target"
)
FRACTION = "expected a number or a fraction like 8/255, got"
OF_LIBRARY = "does not go with square, whose path is its library's"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seeds = [0]\neps = 3", ["2: eps: eps is no key of the whole plan but of [[attacks]]"]),
        ("seed = 3", ["1: seed: unknown key 'seed'; did you mean 'seeds'? Known: attacks, batch_size, compile, controls, data, device, dtype, "
                      "every, keep, keep_images, measures, models, prepare, seeds, shard_size"]),
        ('[[attacks]]\nattack = "pgd"\nsteps = 3\nseeds = [1]',
         ["4: attacks[0].seeds: seeds is a key of the whole plan, not of [[attacks]]: write it above the first table"]),
        ('[[attacks]]\nattack = "pgd"\n\n[[attacks]]\nattack = "fgsm"\n# a remark\neps = [\n  0.1,\n  "big",\n]\nstep = 3',
         [f"9: attacks[1].eps[1]: {FRACTION} 'big'", f"11: attacks[1].step: unknown key 'step'; did you mean 'steps'? Known: {ATTACK_KEYS}"]),
        ('[[attacks]]\nattack = ["pgd",\n"pdg"]', [f"3: attacks[0].attack[1]: unknown attack 'pdg'; did you mean 'pgd'? Known: {ATTACK_NAMES}"]),
        ('attacks = [{attack = "pgd", eps = [-0.1, 0, inf, nan, true, "1/0", "1e400"]}]',
         ["1: attacks[0].eps[0]: expected a number above 0, got -0.1", "1: attacks[0].eps[1]: expected a number above 0, got 0.0",
          "1: attacks[0].eps[2]: expected a finite number, got inf", "1: attacks[0].eps[3]: expected a finite number, got nan",
          f"1: attacks[0].eps[4]: {FRACTION} true", f"1: attacks[0].eps[5]: {FRACTION} '1/0'", f"1: attacks[0].eps[6]: {FRACTION} '1e400'"]),
        ('[[attacks]]\nattack = "pgd"\nsteps = 0\nrestarts = "2"\nrandom_start = 1\ntarget = -1\nnorm = "L2"\nkeep = "all"',
         ["3: attacks[0].steps: expected at least 1, got 0", "4: attacks[0].restarts: expected a whole number, got '2'",
          "5: attacks[0].random_start: expected true or false, got 1",
          "6: attacks[0].target: expected a class number, a class name in quotes or 'least-likely', got -1",
          "7: attacks[0].norm: unknown norm 'L2'; did you mean 'l2'? Known: l2, linf",
          "8: attacks[0].keep: unknown keep 'all'. Known: features, logits"]),
        ('\n[[attacks]]\nattack = "momentum"\n[attacks.arguments]\ndecay = 0.5\nsped = 1\neps = 0.1\nx = {y = 1}',
         ["8: attacks[0].arguments.x: expected text, a number, true or false, got {'y': 1}"]),
        ('\n[[attacks]]\nattack = "momentum"\n[attacks.arguments]\ndecay = [0.5, "fast"]\ndcay = 1\neps = 0.1\ntargeted = true',
         ["5: attacks[0].arguments.decay[1]: argument of momentum decay='fast' is no <class 'float'>: Input should be a valid number, unable to "
          "parse string as a number", "6: attacks[0].arguments.dcay: unknown argument of momentum 'dcay'; did you mean 'decay'? Known: decay, stop",
          "7: attacks[0].arguments.eps: eps is no argument; write the key eps of this attack in its place",
          "8: attacks[0].arguments.targeted: targeted is no argument; write the key target of this attack in its place"]),
        ('[[attacks]]\nattack = ["pgd", "square"]\nstep_size = 0.1\nsteps = [3]\nevery = 2\nrandom_start = [false, true]',
         [f"{line}: attacks[0].{key}: {key} {OF_LIBRARY}; its arguments are queries, p_init"
          for line, key in ((3, "step_size"), (4, "steps"), (5, "every"), (6, "random_start"))]),
        ('keep = "logits"\n\nevery = 2\nattacks = ["pgd", "square"]',
         [f"{line}: {key}: {key} {OF_LIBRARY}; move it into the [[attacks]] that shall have it" for line, key in ((1, "keep"), (3, "every"))]),
        ("[[attacks]]\neps = 0.1", ['1: attacks[0]: attack is missing; name one, as attack = "pgd"']),
        ('[[models]]\nweights = "w.pt"\n[[data]]\nlimit = 3',
         ['1: models[0]: model is missing; name one, as model = "demo" or model = "my_model.py:build"',
          '3: data[0]: data is missing; name them, as data = "digits" or data = "parquet:images.parquet"']),
        ('[models]\nmodel = "demo"', ["1: models: expected a list of tables; write [[models]] with two brackets"]),
        ("models = []\n\n[[data]]\ndata = []", ["1: models: the list is empty; leave the key out for its default",
                                              "4: data[0].data: the list is empty; leave the key out for its default"]),
        ("models = 3\ndata = [4]", ["1: models: expected a list in [ ], got 3", "2: data[0]: expected a table, got 4"]),
        ('[[models]]\nname = "a/b"\nmodel = ""', ["2: models[0].name: a name becomes part of folder names: expected up to 80 letters, digits and "
                                               ". _ + -, as 'a_b'; got 'a/b'", "3: models[0].model: expected text that is not empty, got ''"]),
        ('keep = "logit"\ndtype = "float8"\ncontrols = "yes"\nshard_size = 0\nbatch_size = 2.5\nkeep_images = -1\ndevice = ""\nprepare = 0',
         ["1: keep: unknown keep 'logit'; did you mean 'logits'? Known: features, logits",
          "2: dtype: unknown dtype 'float8'; did you mean 'float64'? Known: bfloat16, float16, float32, float64",
          "3: controls: expected true or false, got 'yes'", "4: shard_size: expected at least 1, got 0",
          "5: batch_size: expected a whole number, got 2.5", "6: keep_images: expected at least 0, got -1",
          "7: device: expected text that is not empty, got ''", "8: prepare: expected true or false, got 0"]),
        ("seeds = 5", ["1: seeds: expected a list, as [0, 1, 2], or {first = 0, count = 100}; got 5"]),
        ("seeds = []", ["1: seeds: the list is empty; leave the key out for its default"]),
        ("seeds = [\n0,\n1,\n0, -1]", ["4: seeds[3]: expected at least 0, got -1"]),
        ("seeds = [\n0,\n1,\n0]", ["4: seeds[2]: seed 0 is there twice"]),
        ("seeds = {count = 0, frist = 3}", ["1: seeds.count: expected at least 1, got 0",
                                          "1: seeds.frist: unknown key 'frist'; did you mean 'first'? Known: count, first"]),
        ("seeds = {first = 1}", ["1: seeds: count is missing; say how many, as {first = 0, count = 100}"]),
        ('seeds = {count = 1000000}\nattacks = ["pgd", "fgsm"]', ["1: the grid has 2000000 runs, at most 1000000 are possible; split the plan"]),
        (tomli_w.dumps({"attacks": [{"attack": "pgd", "eps": [0.1] * 5000, "steps": [1] * 5000, "step_size": [0.1] * 5000}]}),
         ["1: the grid has 125000000000 runs, at most 1000000 are possible; split the plan"]),
        ('[[measures]]\nmeasures = ["log_trace@", "trace_per_gini@1"]',
         ["2: measures[0].measures[0]: 'log_trace@' names no layer; write log_trace@LAYER, as log_trace@input"]),
        ('attacks = [\n"pgd",\n"pgd"]', ["3: attacks[1]: 'pgd' is in attacks[0] already, with the same settings; leave one of them out"]),
        ('[[attacks]]\nattack = "pgd"\neps = [0.1, "1/10"]',
         ["1: attacks[0]: 'pgd-0.1' is here already, with the same settings; leave one of them out"]),
        ('[[data]]\ndata = "npz:a/T.npz"\n[[data]]\ndata = "npz:b/t.npz"',
         ["3: data[1]: 'T' is in data[0] already; give tables that differ (data = 'npz:a/T.npz' and data = 'npz:b/t.npz') names of their own "
          "(name = …)"]),
        ('[[models]]\nname = "x"\nmodel = "demo"\n[[models]]\nname = "x"\nmodel = "family:vgg11-bn"',
         ["4: models[1]: 'x' is in models[0] already; give tables that differ (model = 'demo' and model = 'family:vgg11-bn') names of their own "
          "(name = …)"]),
        ("\n# nothing\n", ['1: the plan is empty; the shortest one is attacks = ["pgd"]']),
        ("seeds = [0]\n[[attacks]]\neps = 8/255",
         ['3: this is no TOML: Expected newline or end of document after a statement at column 8; a fraction stands in quotes: eps = "8/255"']),
        ("controls = True", ["1: this is no TOML: Invalid value at column 12; TOML writes true"]),
        ("every = 1\nkeep = None", ["2: this is no TOML: Invalid value at column 8; leave the key out where there is no value"]),
        ("every = 1\nevery = 2", ["2: this is no TOML: Cannot overwrite a value"]),
        ('every = 1\nkeep = """\n\n', ["2: this is no TOML: Unterminated string"]),
        ("every = 1\n\nseeds = [\n0,\n1", ["3: this is no TOML: Unclosed array"]),
        ("a = 1\nb = " + "[" * 5000, ["1: brackets are nested too deeply to be read"]),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_lines(text: str, says: list[str]) -> None:
    found = refused(text)
    if "trace_per_gini" in text:
        assert found[1].startswith(
            "2: measures[0].measures[1]: unknown measure of a layer 'trace_per_gini'; did you mean 'log_trace_per_gini'?"
        )
        found = found[:1]
    assert found == says


def test_measures_of_ones_own_are_possible_where_a_file_may_register_them() -> None:
    assert refused('measures = [\n"lss"]')[0].startswith(
        "2: measures[0]: unknown measure 'lss'; did you mean 'loss'?"
    )
    (cell,) = grid_of('models = ["own.py:net"]\nmeasures = ["own_measure"]').cells()
    assert cell.request.measures == ["own_measure"]


def test_ten_mistakes_are_enough() -> None:
    found = refused("".join(f"wrong_{number:02d} = 1\n" for number in range(14)))
    assert len(found) == 11
    assert found[9].startswith("10: wrong_09: unknown key")
    assert found[10] == " and 4 more"


def test_what_is_no_plan_file(tmp_path: Path) -> None:
    def says(path: Path) -> str:
        with pytest.raises(InputError) as caught:
            read_grid(path)
        return str(caught.value).replace(str(tmp_path), "HERE")

    assert says(tmp_path / "gone.toml") == "plan file 'HERE/gone.toml' does not exist; check the path"
    assert says(tmp_path) == "HERE is a folder; expected a plan file, as HERE/plan.toml"
    (tmp_path / "latin.toml").write_bytes('seeds = [0]\n# für\nname = "ü"'.encode("latin-1"))
    assert says(tmp_path / "latin.toml") == "HERE/latin.toml:2: this is no UTF-8 text; save the plan as UTF-8"
    (tmp_path / "empty.toml").write_bytes(b"")
    assert says(tmp_path / "empty.toml").startswith("HERE/empty.toml:1: the plan is empty")
    (tmp_path / "loop.toml").symlink_to(tmp_path / "loop.toml")
    assert says(tmp_path / "loop.toml").startswith("plan file 'HERE/loop.toml' cannot be read: ")


def test_files_of_other_editors(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(b"\xef\xbb\xbfseeds = [0]\r\n\r\nattacks = [\r\n'pgd',\r\n'fgsm']\r\n")
    grid = read_grid(path)
    assert grid.text == "seeds = [0]\r\n\r\nattacks = [\r\n'pgd',\r\n'fgsm']\r\n"
    assert [cell.request.attack for cell in grid.cells()] == ["pgd", "fgsm"]
    path.write_bytes(path.read_bytes().replace(b"fgsm", b"fgs"))
    with pytest.raises(
        InputError, match=r"plan\.toml:5: attacks\[1\]: unknown attack 'fgs'; did you mean 'fgsm'"
    ):
        read_grid(path)


STATEMENTS = [
    "# KEY = [", "", "KEY = NUMBER", "a.KEY = {b = NUMBER, c = [NUMBER]}", 'KEY = """\n[[no.header]]\n]\n"""', "KEY_] = NUMBER",
    "KEY = [\n  NUMBER, # ]\n\n  [NUMBER],\n  [\nNUMBER, NUMBER\n]\n]", "KEY = [{b = NUMBER},\n{b = NUMBER}]", "KEY = [[\nNUMBER]]",
    "[[tables]]", "[[tables.inner]]", "[tables.KEY]", "[KEY.b]",
]  # fmt: skip


@given(st.lists(st.sampled_from(STATEMENTS), max_size=12))
def test_each_value_is_found_on_its_line(statements: list[str]) -> None:
    """Every value is a number of its own, found by looking for it in the text."""
    numbers = itertools.count(1000)
    text = "[[tables]]\n" + "\n".join(statements).replace("KEY_]", '"KEY ]"')
    text = re.sub("KEY", lambda _: f"key{next(numbers)}", text)
    text = re.sub("NUMBER", lambda _: str(next(numbers)), text)
    found, lines = lines_of(text), text.split("\n")

    def check(value: object, location: tuple[str | int, ...]) -> None:
        assert found[location] <= len(lines)
        if isinstance(value, dict | list):
            for key, part in value.items() if isinstance(value, dict) else enumerate(value):
                check(part, (*location, key))
        elif isinstance(value, int):
            assert re.search(rf"\b{value}\b", lines[found[location] - 1])

    for key, value in tomllib.loads(text).items():
        check(value, (key,))


def test_long_lists_are_found_by_their_first_line() -> None:
    listed = "".join(f"{number}e-5,\n" for number in range(1, 5000))
    (said,) = refused(f'[[attacks]]\nattack = "pgd"\neps = [\n{listed}"big"]')
    assert said == f"3: attacks[0].eps[4999]: {FRACTION} 'big'"


def test_names_that_no_file_system_takes_are_left_to_the_loader() -> None:
    model, data = "hf:" + "y" * 5000, "npz:" + "z" * 5000
    (cell,) = grid_of(f'models = ["{model}"]\ndata = ["{data}"]').cells()
    assert (cell.request.model, cell.request.data) == (model, data)
    assert max(map(len, cell.labels.values())) == LONGEST


def test_ten_thousand_seeds_share_what_they_can() -> None:
    grid = grid_of("seeds = {count = 10000}")
    cells = grid.cells()
    assert len(cells) == len(grid) == 10_000
    assert cells[-1].request.seed == 9999
    assert cells[-1].labels["seed"] == "9999"
    assert cells[0].request.attack_arguments is cells[-1].request.attack_arguments
    assert "seeds = [0]" not in grid.to_toml()
    assert "count = 10000" in grid.to_toml()


def test_the_example_in_the_docs_can_be_recorded() -> None:
    grid = read_grid(DOCS / "example-plan.toml")
    cells = grid.cells()
    assert len(cells) == 12
    assert cells[0].place == "model=demo/data=digits-96/attack=pgd-32_255-10steps-random/measures=head/seed=0"
    plan, work = make_work(cells[-1].request)
    assert plan.attack.name == "momentum"
    assert plan.attack.settings["eps"] == 0.3
    assert plan.data.examples == len(work.images) == 96


def test_the_plans_in_the_docs_are_plans() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (DOCS / "studies.md").read_text(encoding="utf-8"), re.DOTALL)
    grids = [parse_grid(block, "docs", DOCS) for block in blocks]
    assert len(grids[0]) == 2 * 5 * 2
    assert (
        grids[0]
        .cells()[0]
        .place.startswith(
            "model=cifar-resnet20-a-width_16/data=images-512/attack=pgd-2_255-20steps/measures="
        )
    )
    assert os.sep not in grids[0].choices["attack"][-1].label
    assert grids[0].choices["attack"][-1].label == "strong"
