"""A comparison as data: runs, their scores, the rows of the tables that they fill, and how they are carried out.

    from harness import suites

    digits = suites.suite("digits")                                # rows, scores and runs; nothing is opened or built
    plan = suites.Plan(suite=digits, parts=("table2",))            # what no record answers yet: plan.work()
    suites.reproduce(plan, jobs=2)                                 # trains and scores that, and makes the tables

Importing this package imports neither torch nor pandas.
"""

from harness.suites.allocation import Allocation
from harness.suites.catalogue import SCALES, SUITES, suite
from harness.suites.estimate import Assumptions
from harness.suites.launch import Launch
from harness.suites.plan import Plan
from harness.suites.rehearsal import rehearse
from harness.suites.reproduction import StoppedError, reproduce
from harness.suites.request import Request
from harness.suites.rows import Row, Suite
from harness.suites.run import Run
from harness.suites.score import Score
from harness.suites.script import script
from harness.suites.slurm import give_back
from harness.suites.submission import submit

__all__ = [
    "SCALES", "SUITES", "Allocation", "Assumptions", "Launch", "Plan", "Request", "Row", "Run", "Score", "StoppedError",
    "Suite", "give_back", "rehearse", "reproduce", "script", "submit", "suite",
]  # fmt: skip
