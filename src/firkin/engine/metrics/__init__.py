"""Metrics as Firecracker writes them: a line of JSON at the start, each minute, when asked, and at the end.

What counts does so all the time, by plain additions where things happen. Nothing is collected, and this package is
not imported, unless somebody configures a file for it.
"""

from firkin.engine.metrics.writer import Metrics

__all__ = ["Metrics"]
