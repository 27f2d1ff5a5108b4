"""Kinds of jobs that are told apart in more than one place."""

from __future__ import annotations

# About several runs; they open no model.
ABOUT_RUNS = frozenset(("report", "lab"))
