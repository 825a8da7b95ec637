"""The cost commands: what they print, record and write; a mistake is one line, exit code 2 and nothing written."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from harness import flops, plots, report, tables
from harness.core import paths, store
from harness.cost import CONVENTIONS, measure, workloads_of_tables
from harness.report.figures import cost as cost_figures
from models import catalogue

ROOT = Path(__file__).parents[1]


@pytest.fixture
def records(tmp_path):
    return tmp_path / "records.jsonl"


def run(capsys, records, *arguments: str) -> str:
    flops.main([*arguments, "--records", str(records)])
    return capsys.readouterr().out


def test_the_table_names_exact_costs_published_figures_omissions_and_the_crossover(capsys, records):
    out = run(capsys, records, "--model", "DiT-XL/2", "DiM-XL/2", "--res", "256", "--details")
    assert "118.62" in out
    assert "181.90" in out
    assert [line.split()[-2:] for line in out.splitlines() if "343.28" in line or "294.58" in line] == [
        ["343.28", "yes"],
        ["294.58", "yes"],
    ]
    assert "leaves out of DiM-XL/2: linear in blocks.*.mixer" in out
    assert "DiM-XL/2 costs less than DiT-XL/2 above 1022 px" in out
    assert "DiM-XL/2 has 36 blocks; it would cost what DiT-XL/2 does with 23 at 256 px." in out
    assert "8NLD" in out


def test_the_first_screen_answers_first_and_fits_a_terminal_of_80_by_30(capsys, records):
    lines = run(capsys, records).splitlines()
    assert lines[0].startswith("DiM-XL/2 costs less than DiT-XL/2 above 1022 px. Ratio of the costs: 1.533 at")
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    (row,) = (line.split() for line in lines if line.startswith("DiM-XL/2  ") and " 1024 " in line)
    assert row == ["DiM-XL/2", "1024", "994.47", "2905.96", "5811.92", "0.999"]
    assert "7 of 7 printed Gflops come out to the last digit" in " ".join(" ".join(lines).split())
    assert "\x1b" not in "".join(lines), "colour is for terminals"


def test_clips_are_counted_with_their_frames(capsys, records):
    arguments = ["--model", "DiM-XL/2-video", "DiT-XL/2-video", "--res", "256", "--convention", "exact"]
    out = run(capsys, records, *arguments)
    assert "Exact cost of a forward pass of one clip" in out
    assert ("2905.96" in out, "1862.83" in out) == (True, True)
    assert "DiM-XL/2-video costs less than DiT-XL/2-video above" in out
    assert "8NLD" not in out  # the paper gives no expression for clips
    run(capsys, records, *arguments, "--frames", "8")
    frame = store.frame(store.load(records))
    counted = frame[frame["quantity"] == "cost"].set_index(["model", "frames"])["value"]
    assert list(counted.index) == [
        ("DiM-XL/2-video", 16), ("DiT-XL/2-video", 16),
        ("DiM-XL/2-video(frames=8)", 8), ("DiT-XL/2-video(frames=8)", 8),
    ]  # fmt: skip
    assert counted.iloc[2] / counted.iloc[0] == pytest.approx(0.5, abs=1e-3)


def test_records_hold_every_convention_with_unit_method_and_omissions(capsys, records):
    run(capsys, records, "--model", "DiM-S/4", "--res", "256")
    frame = store.frame(store.load(records))
    cost = frame[frame["quantity"] == "cost"].set_index("convention")
    assert cost.loc["exact", "unit"] == "MAC"
    assert cost.loc["flops", "unit"] == "FLOP"
    assert cost.loc["flops", "value"] == 2 * cost.loc["exact", "value"]
    assert cost.loc["thop", "method"].startswith("thop 0.")
    assert cost.loc["fvcore", "method"].startswith("fvcore")
    assert cost.loc["paper", "batch"] == 3
    assert round(cost.loc["paper", "value"] / 1e9, 2) == 3.69
    assert sum(cost.loc["exact", "parts"].values()) == cost.loc["exact", "value"]
    assert "scan in blocks.*.mixer" in cost.loc["fvcore", "omitted"]
    params = frame[frame["quantity"] == "params"].set_index("convention")
    assert round(params.loc["paper", "value"] / 1e6, 2) == 33.71


def test_a_second_run_adds_no_records(capsys, records):
    for _ in range(2):
        run(capsys, records, "--model", "DiT-N/2", "--res", "256", "--convention", "exact", "thop")
    assert len(records.read_text().splitlines()) == 5  # parameters, elementwise, exact; thop's count and parameters
    assert [record.row()["quantity"] for record in store.load(records)].count("cost") == 2


@pytest.mark.parametrize("style", ["csv", "json", "markdown"])
def test_formats_hold_the_same_rows(capsys, records, tmp_path, style):
    target = tmp_path / "costs"
    arguments = ["--model", "DiT-N/8", "DiM-N/8", "--res", "256", "512", "--convention", "exact"]
    run(capsys, records, *arguments, "--format", style, "--output", str(target))
    text = target.read_text()
    if style == "csv":
        rows = pd.read_csv(target).to_dict("records")
    elif style == "json":
        rows = json.loads(text)
    else:
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
        rows = [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
    assert [(row["model"], int(row["resolution"])) for row in rows] == [
        ("DiT-N/8", 256), ("DiT-N/8", 512), ("DiM-N/8", 256), ("DiM-N/8", 512),
    ]  # fmt: skip


def without(packages: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command where those packages cannot be imported."""
    code = f"""
import sys
for name in {packages!r}.split():
    sys.modules[name] = None
from harness import flops
sys.exit(flops.main({list(arguments)!r}))
"""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_closed_form_is_printed_before_torch_is_needed(records):
    done = without("torch numpy pandas", "--res", "256", "--records", str(records))
    assert "import of torch halted" in done.stderr
    assert done.returncode == 1
    assert "118.62" in done.stdout
    assert "costs less than DiT-XL/2 above 1022 px" in done.stdout
    assert "343.28" not in done.stdout
    assert not records.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--help"], 0, "--convention"),
        (["--by-op", "--res", "256"], 0, "blocks.*.mixer"),
        (["--no-such-flag"], 2, "unknown flag --no-such-flag"),
        (["--model", "DiM-XL/3"], 2, "nearest: DiM-XL"),
        (["--res", "100"], 2, "not divisible by 16"),
        (["--model", "torch.nn:Identity", "--input", "0x3"], 2, "is not SHAPE[:DTYPE]"),
        (["--convention", "gflops"], 2, "choose from exact"),
    ],
)
def test_help_and_complaints_need_no_torch(arguments, code, text):
    done = without("torch numpy pandas matplotlib", *arguments)
    assert done.returncode == code
    assert text in (done.stdout if code == 0 else done.stderr)


def test_every_name_of_the_report_is_there():
    assert all(getattr(report, name) is not None for name in report.__all__)
    with pytest.raises(AttributeError, match="no attribute 'rapport'"):
        report.rapport  # noqa: B018


def test_whole_models_give_the_same_rows(capsys, records):
    arguments = ["--model", "DiT-N/4", "DiM-N/4", "--res", "64", "--format", "json"]
    few, whole = (json.loads(run(capsys, records, *arguments, *more)) for more in ([], ["--full"]))
    for row in (*few, *whole):
        for name in [name for name in row if name.endswith("_method")]:
            row[name] = row[name].removesuffix(" on 1 and 2 blocks, extended")
    assert few == whole


def test_latex_holds_both_tables_and_says_what_each_convention_counts(capsys, records):
    out = run(capsys, records, "--model", "DiT-N/8", "DiM-N/8", "--res", "256", "--format", "latex")
    assert out.count(r"\toprule") == out.count(r"\begin{tabular}") == 2
    assert sum(line.startswith("DiM-N/8 & 256 &") for line in out.splitlines()) == 2
    assert "thop: Linear and Conv modules that are called" in out
    assert r"\begin{tabular}" in run(
        capsys, records, "--model", "DiM-N/8", "--res", "256", "--by-op", "--format", "latex"
    )


def test_all_are_the_papers_sizes_of_every_family(capsys, records):
    out = run(capsys, records, "--model", "all", "--res", "256", "--by-op", "--format", "json")
    named = list(dict.fromkeys(row["model"].removesuffix(" at 256 px") for row in json.loads(out)))
    assert named == catalogue(("S", "B", "L", "XL"))
    assert sum(name.startswith(("DiT-", "DiM-")) for name in named) == 36


def test_the_papers_expressions_stand_beside_every_model_of_images(capsys, records):
    models = ["DiT-N/8", "DiM-N/8", "DiM-N/8-matched"]
    out = run(capsys, records, "--model", *models, "--res", "64", "--convention", "formula")
    rows = out.partition("The paper's expressions")[2].splitlines()
    assert [line.split()[0] for line in rows if "-N/8" in line] == models


def test_a_users_runs_do_not_change_the_papers_tables(capsys, records):
    """Other batches, depths, frames and merges are other questions."""
    counts = measure(workloads_of_tables([6]), list(CONVENTIONS.values()))
    store.append(records, counts)
    before = report.table(6, store.load(records))
    of_images, of_clips = (["--model", *names, "--res", "256"] for names in (["DiM-B/4", "DiT-B/4"], ["DiM-B/4-video"]))
    departures = (["--batch", "8"], ["--batch", "3"], ["--depth", "2"], ["--no-mlp"], ["--merge", "sum"])
    for arguments in (*(of_images + one for one in departures), [*of_clips, "--frames", "4"]):
        run(capsys, records, *arguments, "--convention", "exact", "paper")
    assert len(store.load(records)) > len(counts)
    assert report.table(6, store.load(records)).equals(before)


def test_a_batch_of_several_is_not_held_against_the_printed_figures(capsys, records):
    out = run(capsys, records, "--model", "DiM-B/4", "--res", "256", "--batch", "3", "--format", "json")
    (row,) = json.loads(out)
    assert (row["batch"], row["exact_gmacs"]) == (3, pytest.approx(3 * 9.14, abs=5e-3))
    assert "published_gflops" not in row


def test_by_op_splits_the_whole_cost(capsys, records):
    out = run(capsys, records, "--model", "DiM-B/2", "--res", "256", "--by-op", "--format", "json")
    rows = json.loads(out)
    assert sum(row["gmacs"] for row in rows) == pytest.approx(36.36, abs=5e-3)
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert not records.exists()


def test_departures_from_the_paper_can_be_requested(capsys, records):
    arguments = ["--model", "DiM-XL/4", "--res", "256", "--convention", "exact", "--format", "json"]
    row = json.loads(run(capsys, records, *arguments, "--depth", "24", "--merge", "sum", "--no-mlp"))[0]
    assert row["model"] == "DiM-XL/4(depth=24,mlp=False,merge=sum)"


def test_a_model_of_ones_own_is_counted(capsys, records):
    out = run(capsys, records, "--model", "torchvision.models:resnet18", "--input", "1x3x224x224", "--format", "json")
    row = json.loads(out)[0]
    assert row["exact_gmacs"] == pytest.approx(1.814, abs=1e-3)  # torchvision prints 1.81 for it
    assert row["params_m"] == pytest.approx(11.69, abs=1e-2)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--model", "DiM-XL/3"], "nearest: DiM-XL"),
        (["--res", "100"], "not divisible by 16"),
        (["--model", "DiM-XL/2", "--frames", "8"], "DiM-XL/2 is a model of images and has no frames"),
        (["--model", "DiM-XL/2-video", "--frames", "0"], "positive integer"),
        (["--res", "0"], "positive integer"),
        (["--res", "-256"], "positive integer"),
        (["--batch", "0"], "positive integer"),
        (["--batch", "two"], "positive integer"),
        (["--convention", "gflops"], "choose from exact, flops"),
        (["--merge", "max"], "invalid choice"),
        (["--table", "9"], "invalid choice"),
        (["--format", "xml"], "invalid choice"),
        (["--model", "no.such.module:f", "--input", "1x3"], "cannot import 'no.such.module'"),
        (["--model", "torch.nn:NoSuchThing", "--input", "1x3"], "has no 'NoSuchThing'"),
        (["--model", "torch.nn:Linear", "--input", "1x3"], "torch.nn:Linear() failed: TypeError"),
        (["--model", "builtins:dict", "--input", "1x3"], "gives a dict, not a torch.nn.Module"),
        (["--model", "torch.nn:Identity"], "--input SHAPE"),
        (["--model", "torch.nn:Identity", "--input", "0x3"], "is not SHAPE[:DTYPE]"),
        (["--model", "torch.nn:Identity", "--input", "3:float99"], "is not SHAPE[:DTYPE]"),
        (["--model", "torch.nn:Flatten", "--input", "3", "--convention", "paper"], "choose thop"),
        (["--output", "/dev/null/file"], "cannot write"),
        (["--output", "/"], "cannot write"),
        (["--res", "1000000000"], "has tensors of more than 2^63 bytes; choose a smaller resolution or batch"),
        (["--batch", "999999999999999999", "--res", "256"], "has tensors of more than 2^63 bytes"),
        (["--model", "DiT-B/4", "--merge", "sum"], "--merge is of none of the models DiT-B/4"),
        (["--model", "DiT-B/4", "--input", "1x3"], "--input changes nothing without --model package.module:factory"),
        (["--table", "5", "--res", "256"], "--res changes nothing with --table"),
        (["--by-op", "--convention", "thop"], "--convention changes nothing with --by-op"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, records, arguments, complaint):
    with pytest.raises(SystemExit) as stopped:
        flops.main([*arguments, "--records", str(records)])
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert complaint in captured.err
    assert not records.exists()


def test_the_tables_command_writes_the_published_cells_beside_the_counted(tmp_path, monkeypatch):
    monkeypatch.setenv(paths.VARIABLE, str(tmp_path))
    tables.main(["--table", "5", "6", "--output", str(tmp_path)])
    for number in (5, 6):
        frame = pd.read_csv(tmp_path / f"table{number}_cost.csv", dtype={"published_gflops": str})
        assert frame["model"].tolist() == report.published(number)["model"].tolist()
        assert frame["published_gflops"].tolist() == report.published(number)["gflops"].tolist()
        assert (frame[["gflops_match", "params_m_match"]] == "yes").all(axis=None)
        assert (tmp_path / f"table{number}_cost.md").read_text().count("| DiM-") == len(frame)


def test_committed_tables_are_those_that_the_code_makes():
    for number in report.COST_TABLES:
        committed = (paths.PROJECT / "tables" / f"table{number}_cost.csv").read_text()
        made = report.table(number, store.load(paths.PROJECT / "measurements" / "flops.jsonl"))
        assert report.render(made, "csv") + "\n" == committed


def test_cost_figure_marks_both_crossovers(tmp_path, monkeypatch):
    monkeypatch.setattr(cost_figures, "RESOLUTIONS", (256, 2048))
    monkeypatch.setenv(paths.VARIABLE, str(tmp_path))
    plots.main(["--figure", "cost", "--output", str(tmp_path)])
    svg = (tmp_path / "cost.svg").read_text()
    assert svg.lstrip().startswith("<?xml")
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
    drawing = report.figure("cost", store.load(tmp_path / "measurements"))
    marks = [text.get_text().strip() for text in drawing.axes[0].texts]
    models = ["DiM-XL/2", "DiM-XL/2-matched", "DiT-XL/2"]
    assert sorted(marks) == sorted(["1022 px", "327 px", *models])
    assert drawing.axes[0].get_legend() is None, "lines have their names at their ends"
    paper = drawing.axes[1].get_lines()
    assert {line.get_label(): line.get_ydata()[0] for line in paper} == pytest.approx(
        {"DiT-XL/2": 343.28, "DiM-XL/2": 294.58}, abs=5e-3
    )


@pytest.mark.parametrize(
    ("value", "printed", "verdict"),
    [(1175.696, "1175.7", True), (1175.64, "1175.7", False), (3.687, "3.69", True), (21927.07, "OOM", None)],
)
def test_agreement_is_to_the_printed_precision(value, printed, verdict):
    assert report.agrees(value, printed) is verdict


def test_a_cell_that_was_counted_in_part_is_lacking(capsys, records):
    run(capsys, records, "--model", "DiM-S/4", "DiT-S/4", "--res", "256", "--convention", "exact", "flops")
    with pytest.raises(ValueError, match=r"no record of DiM-S/4 at 256 px \(paper_gmacs, paper_params_m\)"):
        report.table(6, store.load(records))


def test_report_names_what_it_lacks():
    with pytest.raises(ValueError, match="no record of DiT-XL/2 at 256 px"):
        report.table(4, [])
    with pytest.raises(ValueError, match="has no costs; choose from 4, 5, 6"):
        report.table(7, [])
    with pytest.raises(ValueError, match="unknown figure"):
        report.figure("speed", [])
