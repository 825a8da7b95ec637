"""README and docs/: their tables follow from the records, their links lead somewhere, their commands are commands."""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness import suites
from harness.core import store
from harness.core.options import add_options, from_arguments
from harness.core.paths import CHECKOUT
from harness.report.documents import documents, filled

PAGES = documents(CHECKOUT)
COMMANDS = sorted(
    {
        line.split("#")[0].strip()
        for page in PAGES
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
        for line in block.splitlines()
        if line.startswith("python -m harness.")
    }
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_of_a_document_are_what_the_records_say(page):
    records = store.load(CHECKOUT / "results" / "measurements")
    assert filled(page.read_text(), records) == page.read_text(), "python -m harness.report --documents makes them anew"


def test_a_part_that_no_document_can_have_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown part 'nonsense' of a document; choose from published-gflops"):
        filled("<!-- made: nonsense -->\n<!-- end -->", [])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_document_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_of_a_documented_command_exists(command):
    """Each is parsed with one flag too many, which is refused after all others were understood."""
    words = shlex.split(command.split("&&")[0].split(">")[0])
    command_line = [sys.executable, *words[1:], "--no-such-flag"]
    done = subprocess.run(command_line, capture_output=True, text=True, cwd=CHECKOUT, check=False)
    assert done.returncode == 2
    assert "unknown flag --no-such-flag" in done.stderr, done.stderr


@pytest.mark.parametrize("command", [command for command in COMMANDS if "harness.reproduce" in command])
def test_every_documented_suite_can_be_divided_as_documented(command):
    """Processes of which there are too many for a batch are refused when the plan is made."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_options(parser, suites.Request)
    words = shlex.split(command.split("&&")[0].split(">")[0])[3:]
    from_arguments(suites.Request, parser.parse_known_args(words)[0]).plan(runs=Path("runs"), results=Path("results"))


def test_the_readme_shows_how_its_first_command_begins(tmp_path):
    begins = re.search(r"begins with\n\n```\n(.*?)```", PAGES[0].read_text(), re.DOTALL)[1]
    command = [sys.executable, "-m", "harness.flops", "--res", "256", "512", "1024", "2048", "--records"]
    done = subprocess.run([*command, tmp_path / "f.jsonl"], capture_output=True, text=True, cwd=CHECKOUT, check=True)
    assert done.stdout.startswith(begins)
