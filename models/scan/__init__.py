"""The selective scan: one operator, several backends. README.md derives it and says where to begin."""

from models.scan.backends import available, resolve
from models.scan.custom_op import bidirectional_scan, selective_scan
from models.scan.recomputed import recomputed_scan

__all__ = ["available", "bidirectional_scan", "recomputed_scan", "resolve", "selective_scan"]
