"""Bad input: every flag of every command with values that are wrong, huge, empty or of another kind."""

from __future__ import annotations

import argparse
import importlib
import random
import shutil
from pathlib import Path
from unittest import mock

from forks import MODULES, OUT_OF_TIME, run

from harness.core.command import Parser

COMMANDS = {
    "flops": ["--model", "DiT-P/2", "--res", "64", "--convention", "exact"],
    "bench": ["--predict", "--model", "DiT-P/2", "--res", "64"],
    "train": ["--model", "DiT-P/2", "--steps", "2", "--batch", "16", "--dry-run"],
    "sample": ["--ckpt", "missing.pt"],
    "eval": ["--samples", "missing.npz", "--metric", "fd32@digits"],
    "tables": ["--table", "7"],
    "plots": ["--figure", "guidance"],
    "reproduce": ["--suite", "smoke", "--plan"],
    "data": ["encode", "--data", "tree", "--out", "cache"],
}
VALUES = [
    "", " ", "nan", "inf", "-inf", "-1", "0", "1e30", "100000000000000000000000", "-100000000000000000000000", "1.5",
    "foo", "DiT-XL/2x", "DiM", "٣", "None", "[]", "../..", "/", "/dev/null", "/proc/self/mem", "missing/path",
    "text.txt", "folder", "picture.png", "list.json", "a\nb", "é", "%s", "--", "-", "cuda:99", "mps", "meta", "digits",
    "fd0@digits", "fid50k", "is0x10@digits", "fd\uff11k@digits", "=", "a=b", "x" * 5000,
]  # fmt: skip
LIMIT_S = 20


class _FoundError(Exception):
    """Carries a command's parser out of it."""


def flags_of(command: str) -> list[argparse.Action]:
    """Every flag of a command that takes a value, those of its subcommands too."""
    module = importlib.import_module(MODULES.get(command, f"harness.{command}"))

    def found_by(parser: Parser, *_: object) -> None:
        raise _FoundError(parser)

    found: list[argparse.Action] = []
    for verb in ([], ["reference"]) if command == "eval" else ([],):
        with mock.patch.object(Parser, "parse_args", found_by), mock.patch.object(Parser, "parse_known_args", found_by):
            try:
                module.main(verb)
            except _FoundError as error:
                pending = [error.args[0]]
        while pending:
            for action in pending.pop()._actions:
                if isinstance(action, argparse._SubParsersAction):
                    pending += action.choices.values()
                elif action.option_strings and action.nargs != 0:
                    found.append(action)
    return found


def chosen(count: int, chance: random.Random) -> list[tuple[str, str, list[str]]]:
    """So many cases, all commands alike: command, flag, and the arguments."""
    every = [(command, flag.option_strings[-1], value) for command in COMMANDS for flag in flags_of(command)
             for value in VALUES]  # fmt: skip
    picked = chance.sample(every, min(count, len(every)))
    return [(command, flag, [command, *COMMANDS[command], f"{flag}={value}"]) for command, flag, value in picked]


def trial(arguments: list[str], folder: Path) -> tuple[str, str]:
    """What became of it, and what was wrong ("" where it was refused in one line or accepted)."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "folder").mkdir(parents=True)
    (folder / "text.txt").write_text("no such thing\n")
    (folder / "list.json").write_text("[]")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    outcome = run(arguments, folder, limit_s=LIMIT_S)
    if outcome.crashed:
        return "broken", f"traceback: {outcome.err.strip().splitlines()[-1]}"
    if outcome.code == 0:
        return "accepted", ""
    if outcome.code == OUT_OF_TIME:
        return "accepted", f"still at work after {LIMIT_S} s"
    if outcome.code not in (1, 2):
        return "refused", f"exit code {outcome.code}: {outcome.err.strip()[-200:]}"
    complaints = [line for line in outcome.err.splitlines() if "error" in line]
    if len(complaints) != 1 or not outcome.refusal:
        return "refused", f"exit code {outcome.code} with {len(complaints)} lines of complaint: {outcome.err[-300:]!r}"
    return "refused", ""
