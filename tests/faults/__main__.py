"""Crashes, damage and bad input: what every command does when it is killed, when a file is damaged, when a flag is bad.

    python tests/faults                              a few minutes of each
    python tests/faults --kills 1000 --damages 1000 --inputs 1000 --output results/benchmarks/faults

A killed command, run again, must end with what the undisturbed one leaves. A damaged file must be refused in one line,
or repaired, or not matter. A bad flag must be one line and exit code 2. Nothing may be wrong in silence.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import damages
import forks
import inputs
import kills
import work
from tqdm import tqdm

from harness.core.files import write_atomically
from harness.core.provenance import Provenance


def main() -> int:
    tqdm.set_lock(threading.RLock())  # not one that children share: a killed child would keep it
    parser = argparse.ArgumentParser(prog="python tests/faults", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--kills", type=int, default=30, metavar="N")
    parser.add_argument("--damages", type=int, default=60, metavar="N")
    parser.add_argument("--inputs", type=int, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that share the trials")
    parser.add_argument("--only", nargs="+", choices=list(work.BY_NAME), default=list(work.BY_NAME), metavar="WORK")
    parser.add_argument("--output", type=Path, metavar="STEM", help="writes STEM.json and STEM.md")
    chosen = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        if chosen.jobs > 1:
            found = shared(chosen, home)
        else:
            forks.warm()
            found = lanes(chosen, home, random.Random(chosen.seed))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(table(found))
    if chosen.output:
        content = json.dumps(found, indent=1) + "\n"
        write_atomically(chosen.output.with_suffix(".json"), lambda file: file.write(content.encode()))
        write_atomically(chosen.output.with_suffix(".md"), lambda file: file.write(table(found).encode()))
    return 1 if any(row["broken"] for row in found["rows"]) else 0


def shared(chosen: argparse.Namespace, home: Path) -> dict:
    """The trials of several processes, with seeds of their own, as one result."""
    counts = {name: -(-getattr(chosen, name) // chosen.jobs) for name in ("kills", "damages", "inputs")}
    children = []
    for number in range(chosen.jobs):
        command = [sys.executable, str(Path(__file__).parent), "--only", *chosen.only]
        command += ["--seed", str(chosen.seed + number), "--output", str(home / str(number))]
        command += [part for name, count in counts.items() for part in (f"--{name}", str(count))]
        children.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    for child in children:
        child.wait()
    parts = [json.loads((home / f"{number}.json").read_text()) for number in range(chosen.jobs)]
    sums: dict[tuple[str, str, str], Counter] = {}
    for row in (row for part in parts for row in part["rows"]):
        total = sums.setdefault((row["lane"], row["work"], row["fault"]), Counter())
        total.update({name: value for name, value in row.items() if isinstance(value, int)})
    rows = [dict(zip(("lane", "work", "fault"), key, strict=True)) | dict(total) for key, total in sums.items()]
    return {**parts[0], "rows": rows, "broken": [line for part in parts for line in part["broken"]],
            "seed": f"{chosen.seed} to {chosen.seed + chosen.jobs - 1}"}  # fmt: skip


def lanes(chosen: argparse.Namespace, home: Path, chance: random.Random) -> dict:
    """Trials of every lane, spread evenly over the works; what broke a promise is named."""
    base, folder = home / "fixtures", home / "trial"
    if chosen.kills or chosen.damages:
        work.fixtures(base)
    known = {one.name: (digest, seconds) for one, digest, seconds in work.oracle(base, folder, chosen.only)} if (
        chosen.kills or chosen.damages) else {}  # fmt: skip
    rows: dict[tuple[str, str, str], Counter] = {}
    broken: list[str] = []

    def note(lane: str, name: str, fault: str, result: str, wrong: str, detail: str) -> None:
        row = rows.setdefault((lane, name, fault), Counter())
        row["trials"] += 1
        row[result] += 1
        if wrong:
            row["broken"] += 1
            broken.append(f"{lane}: {name}, {detail}: {wrong}")
            tqdm.write(broken[-1], file=sys.stderr)

    names = list(known)
    for number in tqdm(range(chosen.kills if names else 0), desc="kills", unit="trial", disable=None):
        one = work.BY_NAME[names[number % len(names)]]
        wrong = kills.trial(one, *known[one.name], base, folder, chance)
        note("kill", one.name, "killed", "same result", wrong, f"trial {number}")
    readers = [name for name in names if work.BY_NAME[name].reads]
    for number in tqdm(range(chosen.damages if readers else 0), desc="damages", unit="trial", disable=None):
        one = work.BY_NAME[readers[number % len(readers)]]
        what, result, wrong = damages.trial(one, known[one.name][0], base, folder, chance)
        note("damage", one.name, what.split(": ")[1], result, wrong, what)
    for command, what, arguments in tqdm(inputs.chosen(chosen.inputs, chance), desc="inputs", disable=None):
        result, wrong = inputs.trial(arguments, folder)
        note("input", command, what, result, wrong, " ".join(arguments)[:300])
    here = Provenance.here()
    return {
        "seed": chosen.seed,
        "commit": here.commit,
        "dirty": here.dirty,
        "torch": here.versions.get("torch"),
        "processor": here.device,
        "time": here.time,
        "rows": [{"lane": lane, "work": name, "fault": fault, **{k: row[k] for k in ("trials", "same result", "refused",
                  "accepted", "broken")}} for (lane, name, fault), row in rows.items()],
        "broken": broken,
    }  # fmt: skip


def table(found: dict) -> str:
    """Markdown: one line a lane and work."""
    sums: dict[tuple[str, str], Counter] = {}
    for row in found["rows"]:
        total = sums.setdefault((row["lane"], row["work"]), Counter())
        total.update({name: value for name, value in row.items() if isinstance(value, int)})
    columns = ("trials", "same result", "refused", "accepted", "broken")
    lines = ["| lane | work | trials | same result | refused in a line | accepted | broken promises |",
             "| --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for (lane, name), total in sums.items():
        lines.append(f"| {lane} | {name} | " + " | ".join(str(total[column]) for column in columns) + " |")
    for lane in dict.fromkeys(lane for lane, _ in sums):
        total = sum((row for (of, _), row in sums.items() if of == lane), Counter())
        lines.append(f"| **{lane}** | **all** | " + " | ".join(f"**{total[column]}**" for column in columns) + " |")
    where = f"commit {found['commit']}, {found['processor']}, torch {found['torch']}"
    return "\n".join([*lines, "", f"`python tests/faults`, seed {found['seed']}, {where}", ""])


if __name__ == "__main__":
    sys.exit(main())
