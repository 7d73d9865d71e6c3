"""Where the book's files are, in a checkout and without one."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def checkout() -> Path | None:
    """Root of the checkout that this package is run from, or ``None`` for an installed copy."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "notebooks").is_dir() and (root / "pyproject.toml").is_file() else None


def published_results() -> Path | None:
    """Folder of the stored results that come with the book: a checkout's own, or those in an installed package."""
    root = checkout()
    folder = (Path(__file__).resolve().parent if root is None else root / "notebooks") / "results"
    return folder if folder.is_dir() else None


def working_results() -> Path:
    """Folder that newly computed results go to: in the checkout's build folder, or in the user's cache."""
    root = checkout()
    return (cache_folder() if root is None else root / "_build") / "results"


def cache_folder() -> Path:
    """User's cache folder for `dmfkit`; the environment variable ``DMFKIT_CACHE`` names another."""
    named = os.environ.get("DMFKIT_CACHE")
    return Path(named) if named else user_cache_path("dmfkit")
