"""Tables, figures and the page, from a run directory alone."""

from distillscope.report.claims import claims_table, decide_claims, write_claims
from distillscope.report.compare import compare_runs
from distillscope.report.compare_terminal import comparison_tables
from distillscope.report.compare_write import check_out, default_out, write_comparison
from distillscope.report.paper import write_paper
from distillscope.report.tables import terminal_table
from distillscope.report.write import write_report

__all__ = ["check_out", "claims_table", "compare_runs", "comparison_tables", "decide_claims", "default_out", "terminal_table", "write_claims",
           "write_comparison", "write_paper", "write_report"]
