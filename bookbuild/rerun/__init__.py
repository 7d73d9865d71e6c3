"""Re-running a chapter with many sets of parameters, and their results side by side."""

from bookbuild.rerun.run import rerun

__all__ = ["rerun"]
