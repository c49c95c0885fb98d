"""The papers' claims: ledger, rules, verdicts, report."""
