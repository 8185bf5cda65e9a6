"""The report of a study: one page, its figures, and the numbers behind them."""

from cnnjax.report import figures
from cnnjax.report.page import write

__all__ = ["figures", "write"]
