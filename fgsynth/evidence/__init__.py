"""The papers' claims: ledger, rules, verdicts, report."""

RUN = "run.json"
"""Commit, date, seconds and machine of a run, beside a stage's results; its writer needs no torch."""
