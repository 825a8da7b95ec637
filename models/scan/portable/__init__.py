"""Backends in plain torch operators, for any device and dtype."""
