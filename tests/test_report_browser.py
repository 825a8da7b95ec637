"""The page in a browser: every section stands, controls give the numbers of harness.flops, keys and addresses work.

Debian's Chromium, driven by Playwright; skipped where either is absent.
"""

import csv
import dataclasses
import os
import re
import shutil
from pathlib import Path

import pytest
from test_report_hardware import latency

from harness import flops
from harness.core import paths
from harness.report.page import page as make_page
from harness.report.recorded import RecordsFile

playwright = pytest.importorskip("playwright.sync_api", reason='pip install "dim-vs-dit[dev]"')

BROWSER = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking " \
        "--disable-component-update --disable-sync"  # fmt: skip
PAGE = paths.PROJECT / "report.html"
SECTIONS = ("cost", "memory", "latency", "quality", "samples", "tables", "origins")
pytestmark = pytest.mark.skipif(not BROWSER, reason="needs Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=BROWSER, args=FLAGS.split())
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """Opens an address in a new window; in the end nothing must have been complained of or asked of a network."""
    windows, heard = [], []

    def opened(address: str = "", path: Path = PAGE, **settings):
        window = browser.new_context(viewport={"width": 1200, "height": 900}, **settings)
        shown = window.new_page()
        shown.on("console", lambda message: heard.append(f"console: {message.text}"))
        shown.on("pageerror", lambda error: heard.append(f"error: {error}"))
        shown.on("request", lambda request: heard.append(request.url) if not allowed(request.url, path) else None)
        shown.goto(f"{path.as_uri()}{address}")
        shown.wait_for_selector("html[data-ready]", state="attached")
        windows.append(window)
        return shown

    yield opened
    for window in windows:
        window.close()
    assert heard == []


def allowed(url: str, path: Path) -> bool:
    return url.startswith((path.as_uri(), "data:", "blob:"))


def cells(shown, section: str) -> dict[str, dict[str, str]]:
    """The table under a section's chart: what stands in each column, by the first cell of the row."""
    return shown.evaluate(
        """(section) => {
            const table = document.querySelector(`#${section} [data-table] table`);
            const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
            return Object.fromEntries([...table.tBodies[0].rows].map((row) =>
                [row.cells[0].textContent,
                 Object.fromEntries([...row.cells].map((cell, i) => [heads[i], cell.textContent]))]));
        }""",
        section,
    )


def choose(shown, section: str, group: str, words: str) -> None:
    """Presses one of the rounded choices."""
    shown.locator(f"#{section} fieldset", has_text=group).get_by_text(words, exact=True).click()


def test_every_section_stands_with_its_charts_and_tables(visit):
    shown = visit()
    for name in SECTIONS:
        assert shown.locator(f"#{name} h2").is_visible()
    for chart in shown.locator(".chart").all():
        if chart.is_visible():
            chart.locator("svg").wait_for(state="attached")
            assert chart.locator("svg path, svg text").count() > 5
    for name in ("cost", "memory", "latency", "origins"):
        assert len(cells(shown, name)) > 0, name
    assert shown.locator("#quality .answer").inner_text().startswith("Best mean")
    assert shown.locator("#samples canvas").count() >= 20
    assert shown.locator("#tables table").count() >= 9


@pytest.mark.parametrize("convention", ["exact", "thop"])
def test_the_cost_that_is_chosen_is_what_harness_flops_prints(visit, capsys, tmp_path, convention):
    shown = visit()
    choose(shown, "cost", "Size", "S")
    choose(shown, "cost", "Patch", "4")
    slider = shown.get_by_role("slider", name="Resolution:")
    slider.focus()
    for _ in range(4):  # 256, then steps of 64
        slider.press("ArrowRight")
    shown.get_by_label("Counted as").select_option(convention)
    flops.main(["--model", "DiT-S/4", "DiM-S/4", "--res", "512", "--convention", convention, "--records",
                str(tmp_path / "flops.jsonl")])  # fmt: skip
    printed = capsys.readouterr().out
    found = cells(shown, "cost")
    heading = {"exact": "(1 GMAC", "thop": "The same passes"}[convention]
    for model in ("DiT-S/4", "DiM-S/4"):
        lines = [line.split() for line in printed[printed.index(heading) :].splitlines()]
        row = next(line for line in lines if line[:2] == [model, "512"])
        assert found[model]["GMAC"] in row
        if convention == "exact":
            assert {found[model]["params (M)"], found[model]["linear"]} <= set(row)
    ratio = found["DiM-S/4"]["ratio"].split(" ")[0]
    assert f"{ratio} times" in shown.locator("#cost .answer").inner_text()
    if convention == "exact":
        assert ratio in printed


def test_memory_tells_what_fits_and_what_breaks_it(visit):
    shown = visit("#memory?memory.card=24&memory.dtype=float32&memory.px=2048")
    answer = shown.locator("#memory .answer").inner_text()
    assert "DiT-XL/2, naive attention: does not fit, 530.69 GiB of 24." in answer
    assert "_softmax in blocks.*.attn" in answer
    choose(shown, "memory", "Card", "80 GiB")
    assert "DiT-XL/2, sdpa attention: fits, 49.92 of 80 GiB." in shown.locator("#memory .answer").inner_text()
    choose(shown, "memory", "Batch", "3")
    assert "python -m harness.bench --predict" in shown.locator("#memory .answer").inner_text()
    assert not shown.locator("#memory figure").is_visible(), "nothing empty is shown"


def test_what_is_chosen_is_in_the_address_and_comes_back_with_it(visit):
    shown = visit()
    choose(shown, "cost", "Size", "B")
    choose(shown, "quality", "Against", "parameters")
    address = shown.evaluate("location.hash")
    assert "cost.size=B" in address
    assert "quality.against=params" in address
    again = visit(address)
    assert "DiM-B/2" in again.locator("#cost .answer").inner_text()
    assert again.locator("#quality [data-out=title]").inner_text().startswith("FD against parameters")
    again.get_by_role("button", name="Reset every choice").click()
    assert "DiM-XL/2" in again.locator("#cost .answer").inner_text()
    assert "=" not in again.evaluate("location.hash")
    broken = visit("#cost?cost.size=Q&cost.px=100&nonsense=1&cost.convention=gflops")
    assert "At 256 px DiM-XL/2" in broken.locator("#cost .answer").inner_text(), "what cannot be is the usual"


def rows_of(table):
    """The measured rows of a table that is committed."""
    with open(paths.PROJECT / f"tables/{table}.csv", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["fid"]]


def test_all_of_it_goes_by_keyboard(visit):
    shown = visit()
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.textContent") == "Skip to the content"
    shown.keyboard.press("Enter")
    assert shown.evaluate("document.activeElement.id") == "main"
    seen = []
    for _ in range(40):
        shown.keyboard.press("Tab")
        seen.append(
            shown.evaluate("document.activeElement.name || document.activeElement.id || document.activeElement.tagName")
        )
    assert [name for name in dict.fromkeys(seen) if name.startswith("cost.")] == [
        "cost.kinds", "cost.of", "cost.size", "cost.patch", "cost.printed", "cost.px", "cost.convention"
    ]  # fmt: skip
    shown.locator("input[name='cost.size'][value='XL']").focus()
    shown.keyboard.press("ArrowLeft")
    assert "DiM-L/2" in shown.locator("#cost .answer").inner_text()
    outline = shown.evaluate("getComputedStyle(document.activeElement.closest('label')).outlineStyle")
    assert outline == "solid", "where the focus is can be seen"
    heading = shown.locator("#table-table2 thead button", has_text="FD").first
    heading.focus()
    shown.keyboard.press("Enter")
    assert shown.locator("#table-table2 th[aria-sort=ascending]").inner_text().startswith("FD")
    first = shown.locator("#table-table2 tbody tr").first.inner_text()
    by_distance = [row["measured_row"] for row in sorted(rows_of("table2"), key=lambda row: float(row["fid"]))]
    assert f"\t{by_distance[0]}\t" in first, "the least distance comes first"
    shown.keyboard.press("Enter")
    assert f"\t{by_distance[-1]}\t" in shown.locator("#table-table2 tbody tr").first.inner_text()


def test_all_controls_tables_and_pictures_have_names(visit):
    shown = visit()
    nameless = shown.evaluate(
        """() => [...document.querySelectorAll("input, select, button, canvas, form, section, [role]:not(svg *)")]
            .filter((one) => !(one.labels?.length || one.ariaLabel || one.getAttribute("aria-labelledby")
                || one.textContent.trim() || one.closest("[role=img]")))
            .map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
    assert shown.evaluate("[...document.querySelectorAll('table')].every((table) => table.caption?.textContent)")
    chart = shown.locator("#cost [aria-roledescription=visualization]").first
    assert "DiM-XL/2" in chart.get_attribute("aria-label")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_sideways_scrolling_in_light_and_dark(visit, scheme):
    shown = visit(color_scheme=scheme)
    shown.set_viewport_size({"width": 360, "height": 740})
    shown.wait_for_timeout(300)
    assert shown.evaluate("document.documentElement.scrollWidth") <= 360
    paper, ink = (shown.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
    light = {name: sum(map(int, rgb[4:-1].split(","))) for name, rgb in (("paper", paper), ("ink", ink))}
    assert (light["paper"] > light["ink"]) == (scheme == "light")
    assert abs(light["paper"] - light["ink"]) > 500
    line = shown.locator("#cost [data-chart=lines] path[stroke-width='2.5']").first
    assert line.get_attribute("stroke") == {"light": "#0072B2", "dark": "#73B1D5"}[scheme]


def test_every_suite_opens_on_scores_and_none_of_its_choices_leads_to_nothing(visit):
    shown = visit("#quality")
    suites = shown.locator("#quality fieldset", has_text="Suite").locator("label").all_inner_texts()
    assert len(suites) > 2
    first = shown.locator("#quality .answer").inner_text()
    for suite in suites:
        choose(shown, "quality", "Suite", suite)
        for group in ("Size", "Patch", "Guidance"):
            labels = shown.locator("#quality fieldset", has_text=group).locator("label:visible")
            for choice in labels.all():
                choice.click()
                assert shown.locator("#quality .answer").inner_text().startswith("Best mean"), (suite, group)
                assert labels.locator("input:checked").count() == 1, (suite, group)
    shown.get_by_role("button", name="Reset every choice").click()
    assert shown.locator("#quality .answer").inner_text() == first


def test_the_best_mean_is_that_of_the_table_of_the_same_suite(visit):
    """Of a mean over seeds, draws of one seed being one value."""
    answer = visit("#quality").locator("#quality .answer").inner_text()
    value, model, seeds = re.search(r": ([\d.,]+), (\S+), over (\d+) seeds", answer).groups()
    rows = [row for row in rows_of("table2") if row["contest"] == "3,000 steps"]
    rows += [row for row in rows_of("families") if row["contest"] == "N/4"]
    best = min(rows, key=lambda row: float(row["fid"]))
    assert float(value.replace(",", "")) == pytest.approx(float(best["fid"]), rel=1e-3)
    assert best["measured_row"].startswith(model)
    assert seeds == best["fid_seeds"]


def test_a_point_tells_its_run_and_leads_to_its_record(visit):
    shown = visit("#quality")
    shown.locator("#quality details summary").first.click()
    shown.locator("#quality [data-table] button", has_text="details").first.click()
    detail = shown.locator("#quality [data-out=detail]")
    for words in ("seed", "protocol", "python -m harness.eval", "weights"):
        assert words in detail.inner_text()
    detail.get_by_role("link").click()
    found = shown.locator("#origins .answer")
    found.get_by_text("1").first.wait_for()
    assert found.inner_text().startswith("1 of ")
    mark = shown.locator("#quality .chart svg .mark-symbol path").first
    mark.scroll_into_view_if_needed()
    mark.click(force=True)
    assert "fd2k@efficientnet-lite0" in detail.inner_text()


def test_clips_play_pause_and_stand_where_less_motion_is_wished(visit):
    still = visit(reduced_motion="reduce")
    canvas = still.locator("#samples figure", has_text="-video").first.locator("canvas").first
    before = canvas.evaluate("(one) => one.toDataURL()")
    still.wait_for_timeout(500)
    assert canvas.evaluate("(one) => one.toDataURL()") == before
    frames = still.get_by_role("slider", name="Frame:")
    frames.focus()
    frames.press("ArrowRight")
    assert canvas.evaluate("(one) => one.toDataURL()") != before
    moving = visit()
    assert moving.locator("#play").inner_text() == "Pause the clips"
    frame = moving.get_by_role("slider", name="Frame:").input_value()
    moving.locator("#samples").scroll_into_view_if_needed()
    for _ in range(50):
        moving.wait_for_timeout(100)
        if moving.get_by_role("slider", name="Frame:").input_value() != frame:
            break
    else:
        pytest.fail("the clips stand")
    moving.locator("#play").click()
    assert moving.locator("#play").inner_text() == "Play the clips"


@pytest.mark.parametrize(("words", "name"), [("CSV", "table2.csv"), ("Markdown", "table2.md"), ("LaTeX", "table2.tex")])
def test_a_table_is_taken_along_as_it_is_committed(visit, words, name, tmp_path):
    shown = visit()
    with shown.expect_download() as started:
        shown.locator("#table-table2").get_by_role("link", name=words).click()
    assert started.value.suggested_filename == name
    started.value.save_as(tmp_path / name)
    assert (tmp_path / name).read_bytes() == (paths.PROJECT / "tables" / name).read_bytes()


def test_measured_times_are_shown_and_no_text_of_a_record_is_run(visit, tmp_path):
    evil = "</script><img src=x onerror=document.title='run'><b>"
    times = {("DiT-XL/2", 256): 0.01, ("DiM-XL/2", 256): 0.02, ("DiT-XL/2", 1024): 0.1, ("DiM-XL/2", 1024): 0.08}
    records = [latency(model, pixels, seconds) for (model, pixels), seconds in times.items()]
    records += [dataclasses.replace(latency("DiT-XL/2", 2048, 0, "oom", note=evil), method=evil)]
    path = tmp_path / "measured.html"
    path.write_text(make_page([RecordsFile(f"{evil}.jsonl", "0" * 64, dict(enumerate(records, 1)))], tmp_path))
    shown = visit(path=path)
    assert (
        "DiM-XL/2 over DiT-XL/2, time: 2 at 256 px, 0.8 at 1024 px."
        in shown.locator("#latency .answer").inner_text()
    )
    assert cells(shown, "latency")["DiM-XL/2, auto scan"]["median, ms"] == "80"
    assert shown.title() == "DiM vs DiT: the report"
    assert shown.locator("img").count() == 0
