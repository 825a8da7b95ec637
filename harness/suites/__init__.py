"""A comparison as data: runs, their scores, the rows of the tables that they fill, and how they are carried out."""

from harness.suites.run import Row, Run, Score
from harness.suites.suite import SCALES, SUITES, Suite, suite

__all__ = ["SCALES", "SUITES", "Row", "Run", "Score", "Suite", "suite"]
