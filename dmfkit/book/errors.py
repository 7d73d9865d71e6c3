"""The exception of a build that ran and failed, as opposed to one that was asked for wrongly."""


class BuildError(RuntimeError):
    """The build failed; the message names what failed and where."""
