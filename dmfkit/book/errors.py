"""The exceptions of work that was begun and failed, as opposed to work that was asked for wrongly."""


class BuildError(RuntimeError):
    """The build failed; the message names what failed and where."""

    heading = "The book was not built."


class RerunError(BuildError):
    """Some parameter sets of a re-run failed; the message names which, where and why."""

    heading = "Not every parameter set could be run."
