"""The figures, a module a kind."""
