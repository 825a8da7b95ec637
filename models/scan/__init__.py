"""The selective scan: one signature, several backends."""

from .backends import available, resolve
from .op import selective_scan

__all__ = ["available", "resolve", "selective_scan"]
