"""Tables, figures and the page, from a run directory alone."""

from distillscope.report.tables import terminal_table
from distillscope.report.write import write_report

__all__ = ["terminal_table", "write_report"]
