"""Tables, figures and the page, from a run directory alone."""

from distillscope.report.claims import claims_table, decide_claims, write_claims
from distillscope.report.tables import terminal_table
from distillscope.report.write import write_report

__all__ = ["claims_table", "decide_claims", "terminal_table", "write_claims", "write_report"]
