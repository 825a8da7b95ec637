"""The published costs of the field, each with the rule that gives it or as unsolved, beside the exact cost.

    from harness.cost.observatory import observe

    for one in observe(["DiG"]):
        one.printed.model, one.printed.printed, one.best.value, one.verdict, one.exact_gmacs, one.missing

Figures are data in results/published/costs.csv, readings of them in readings.csv. Imports no torch.
"""

from __future__ import annotations

from harness.cost.observatory.printed import Printed, printed_figures
from harness.cost.observatory.readings import Reading, readings
from harness.cost.observatory.verdicts import Observation, Tried, observe

__all__ = ["Observation", "Printed", "Reading", "Tried", "observe", "printed_figures", "readings"]
