"""Progress of long work: a bar on a terminal, and one line of text for whoever runs the process."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType

from tqdm import tqdm


class Progress:
    """Counts finished units of work.

    A bar is drawn only on a terminal, never into a notebook. If the environment variable ``DMFKIT_PROGRESS`` names a
    file, its one line always says how far the work is; the book's build shows it.
    """

    def __init__(self, total: int, label: str) -> None:
        self._total, self._label, self._done = total, label, 0
        self._bar = tqdm(total=total, desc=label, disable=None, leave=False)
        self._file = os.environ.get("DMFKIT_PROGRESS")
        self.advance(0)

    def advance(self, count: int) -> None:
        """Add `count` finished units."""
        self._done += count
        self._bar.update(count)
        if self._file:
            path = Path(self._file)
            temporary = path.with_name(path.name + ".tmp")
            # On a full disk the work goes on, and says so itself where it must write.
            with contextlib.suppress(OSError):
                temporary.write_text(f"{self._label} {self._done}/{self._total}\n", encoding="utf-8")
                temporary.replace(path)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
