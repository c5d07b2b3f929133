"""Chart specifications and scripts of the page, without a browser: valid, quiet about data, kept in the cache."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import vl_convert

from folders import uncanny
from shown_pages import HOSTILE, hostile
from uncannyvalley.report.charts import bundle
from uncannyvalley.report.charts.scripts import OWN_SCRIPTS, inline_scripts, own_script
from uncannyvalley.report.charts.walk_chart import walk_chart, walk_key
from uncannyvalley.report.pages.page import ReportPage
from uncannyvalley.report.pages.report_page import page_of_run, render
from uncannyvalley.run.folder import open_run

SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> ReportPage:
    folder = tmp_path_factory.mktemp("recorded") / "run"
    uncanny("record", "--eps", "0.3", "--steps", "4", "--limit", "8", "--keep", "logits", "--out", folder)
    return page_of_run(open_run(folder))


def charts_of(page: ReportPage) -> dict[str, Any]:
    data = str(inline_scripts(page.payload).data)
    found = re.search(r'id="charts">(.*?)</script>', data, re.DOTALL)
    assert found is not None
    charts: dict[str, Any] = json.loads(found[1])
    return charts


def test_every_chart_is_a_valid_specification(page: ReportPage) -> None:
    (charts,) = charts_of(page)["runs"].values()
    for name in ("walk", "example", "probabilities"):
        drawn = vl_convert.vegalite_to_vega(charts[name], vl_version="6.4")
        assert drawn["marks"]
    walk = charts["walk"]["vconcat"]
    assert [one["title"] for one in walk[:2]] == [
        "Log κ, relative sharpness at the head, nats",
        "Change of log κ, and its shares (mean)",
    ]
    assert len(walk) == 4
    assert {one["width"] for one in walk} == {640}  # one signal moves them all


def test_charts_hold_no_numbers_of_the_run(page: ReportPage) -> None:
    (run,) = page.payload["runs"]
    other = {**run, "steps": [], "marks": {}, "count": 0, "title": run["title"]}
    assert walk_chart(run) == walk_chart(other)
    assert [one["colour"] for one in walk_key(run)] == ["attack", "noise", "assist"]


def test_the_policy_names_the_scripts_byte_for_byte(page: ReportPage) -> None:
    html = render(page)
    scripts = SCRIPT.findall(html)
    digests = [
        f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts
    ]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    said = policy[1].replace("&#39;", "'")
    assert f"script-src {' '.join(digests)};" in said
    assert "default-src 'none'" in said
    assert len(digests) == 2


def test_scripts_say_what_they_are_for() -> None:
    folder = Path(bundle.__file__).parents[1] / "scripts"
    assert {one.stem for one in folder.glob("*.js")} == set(OWN_SCRIPTS)
    for one in folder.glob("*.js"):
        text = one.read_text(encoding="utf-8")
        assert text.startswith(("//", "/*")), one.name
        assert "innerHTML" not in text, one.name
    assert own_script().count("\n") < 1200


def test_names_cannot_end_a_script(page: ReportPage) -> None:
    inlined = inline_scripts(hostile(page).payload)
    assert HOSTILE not in str(inlined.data)
    assert str(inlined.data).count("</script>") == 2
    assert HOSTILE not in render(hostile(page))


def test_the_library_is_kept_and_a_damaged_one_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNCANNY_CACHE", str(tmp_path / "cache"))
    first = bundle.javascript_bundle.__wrapped__()
    (kept,) = (tmp_path / "cache").iterdir()
    content = kept.read_bytes()
    assert first == content.decode()
    with monkeypatch.context() as without:
        without.setattr(vl_convert, "javascript_bundle", lambda **_: pytest.fail("made twice"))
        assert bundle.javascript_bundle.__wrapped__() == first
    kept.write_bytes(content[:1000] + b"!" + content[1001:])
    assert bundle.javascript_bundle.__wrapped__() == first
    assert kept.read_bytes() == content


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNCANNY_CACHE", str(tmp_path / "file"))
    text = bundle.javascript_bundle.__wrapped__()
    assert text is not None
    assert "window.vegaEmbed" in text
