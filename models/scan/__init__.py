"""The selective scan: one signature, several backends."""

from .backends import available, resolve
from .bidirectional import bidirectional_scan
from .op import selective_scan

__all__ = ["available", "bidirectional_scan", "resolve", "selective_scan"]
