"""Settle the papers' claims by what a chapter measured.

A chapter calls `claim` once per claim that it settles. The call shows a box with the verdict, and
leaves the same verdict in machine-readable form in the notebook's output, from which the build
makes the scoreboard.

The ledger of the papers' checkable claims, in our own words.

What a chapter found about one claim, as a notebook shows it and as the build reads it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from html import escape
from importlib import resources
from typing import Any, Literal, Protocol

import numpy as np
import yaml

from dmfkit.errors import InputError


@dataclass(frozen=True)
class LedgerEntry:
    """One checkable claim of one of the two papers, in our own words.

    `paper` is "arora" or "yaras", `kind` says what the claim is (theorem, figure, ...), `locus` where the
    paper makes it, `setting` under which conditions, and `how_to_check` what would confirm or falsify it.
    """

    id: str
    paper: str
    kind: str
    locus: str
    statement: str
    setting: str
    how_to_check: str
    notes: str = ""


@cache
def ledger() -> dict[str, LedgerEntry]:
    """Return every claim of the ledger by its id, in the ledger's order."""
    text = resources.files("dmfkit.chapters").joinpath("claims.yml").read_text(encoding="utf-8")
    entries = [LedgerEntry(**row) for row in yaml.safe_load(text)]
    return {entry.id: entry for entry in entries}


CLAIM_TYPE = "application/vnd.dmfkit.claim+json"

Outcome = Literal["reproduced", "reproduced with a correction", "partly", "not reproduced", "not testable"]


@dataclass(frozen=True)
class Erratum:
    """What a paper prints wrongly. All three are MyST text, so formulas stand between dollar signs.

    Attributes
    ----------
    printed, corrected : str
        The formula or the condition as it is printed, and as it should read.
    evidence : str
        How far the printed form is off, measured, and how small the error of the corrected one is.
    """

    printed: str
    corrected: str
    evidence: str


@dataclass(frozen=True)
class Difference:
    """Where a paper's text and its released code or output disagree. All three are MyST text.

    Attributes
    ----------
    paper, code : str
        What the text says, and what the released code or output does.
    effect : str
        What that changes, measured.
    """

    paper: str
    code: str
    effect: str


@dataclass(frozen=True)
class Verdict:
    """What a chapter found about one claim; a notebook shows it as a box."""

    entry: LedgerEntry
    outcome: Outcome
    measured: str
    checks: Mapping[str, bool] = field(default_factory=dict)
    correction: str = ""
    reason: str = ""
    changed: Mapping[str, str] = field(default_factory=dict)
    erratum: Erratum | None = None
    difference: Difference | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain JSON values, the form that the build collects."""
        return {
            "id": self.entry.id,
            "verdict": self.outcome,
            "measured": self.measured,
            "checks": dict(self.checks),
            "correction": self.correction,
            "reason": self.reason,
            "changed_parameters": dict(self.changed),
            "erratum": asdict(self.erratum) if self.erratum else None,
            "difference": asdict(self.difference) if self.difference else None,
        }

    def _caveat(self) -> str:
        if not self.changed:
            return ""
        return f"Run with other parameters than the paper's ({', '.join(self.changed)}), so this settles nothing."

    def _remarks(self) -> list[tuple[str, str]]:
        remarks = [("Measured", self.measured), ("Correction", self.correction), ("Reason", self.reason)]
        return [(label, text) for label, text in (*remarks, ("Caveat", self._caveat())) if text]

    def __str__(self) -> str:
        lines = [f"{self.outcome.upper()}: {self.entry.id}", self.entry.statement]
        lines += [f"[{'yes' if held else 'no'}] {check}" for check, held in self.checks.items()]
        return "\n".join(lines + [f"{label}: {text}" for label, text in self._remarks()])

    def _html(self) -> str:
        kind = self.outcome.replace(" ", "-")
        checks = "".join(
            f'<li><strong class="dmfkit-check-{"yes" if held else "no"}">{"yes" if held else "no"}</strong> '
            f"{escape(check)}</li>"
            for check, held in self.checks.items()
        )
        remarks = "".join(f"<p><em>{label}:</em> {escape(text)}</p>" for label, text in self._remarks())
        rule = f"<details><summary>The ledger's rule</summary><p>{escape(self.entry.how_to_check)}</p></details>"
        return (
            f'<div class="dmfkit-verdict dmfkit-{kind}" id="claim-{escape(self.entry.id)}">'
            f'<p><strong class="dmfkit-outcome">{escape(self.outcome.capitalize())}</strong> '
            f"<code>{escape(self.entry.id)}</code> <span>{escape(self.entry.locus)}</span></p>"
            f"<p>{escape(self.entry.statement)}</p>{f'<ul>{checks}</ul>' if checks else ''}{remarks}{rule}</div>"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:  # noqa: ARG002
        return {"text/plain": str(self), "text/html": self._html(), CLAIM_TYPE: self.to_json()}


__all__ = ["Difference", "Erratum", "LedgerEntry", "Parameters", "Verdict", "claim", "ledger", "not_testable"]


class Parameters(Protocol):
    """What a verdict needs to know about a chapter's parameters."""

    @property
    def changed(self) -> Mapping[str, Any]:
        """Name and value of each parameter that differs from the paper's own; empty for the paper's run."""


def claim(
    claim_id: str,
    holds: bool | Mapping[str, bool],
    measured: str,
    *,
    parameters: Parameters,
    correction: str = "",
    reason: str = "",
    erratum: Erratum | None = None,
    difference: Difference | None = None,
) -> Verdict:
    """Settle one claim of the ledger by what was measured.

    Parameters
    ----------
    claim_id
        The claim's id in the ledger.
    holds
        Whether the claim holds, or a mapping from the description of each measured check to whether that
        check holds. All true is "reproduced", all false "not reproduced", a mixture "partly".
    measured
        The measured numbers, as a sentence.
    parameters
        Has the attribute `changed`, which maps the name of each parameter that differs from the paper's own
        to its value.
    correction
        What had to be corrected in the claim before it held; turns "reproduced" into "reproduced with a
        correction".
    reason
        Why the claim holds only partly or not at all. Needed there under the paper's own parameters.
    erratum
        What the paper prints wrongly, for the page of errata. Needs `correction`, which says the same in plain words.
    difference
        Where the text and the released code disagree, for the page on paper and code.

    Raises
    ------
    InputError
        For an unknown id, a `holds` that is not a truth value, an empty `measured`, a missing reason, or an erratum
        without a correction.
    """
    entry = _entry(claim_id)
    checks = _truth_values(claim_id, holds)
    if not isinstance(measured, str) or not measured.strip():
        raise InputError(f"The claim {claim_id!r} has measured = {measured!r}: pass a sentence of what was measured.")
    if erratum is not None and not correction.strip():
        raise InputError(f"The claim {claim_id!r} has an erratum: say in correction=... what was corrected.")
    outcome: Outcome = "partly"
    if all(checks.values()):
        outcome = "reproduced with a correction" if correction else "reproduced"
    elif not any(checks.values()):
        outcome = "not reproduced"
    changed = _changed(parameters)
    needs_reason = outcome in ("partly", "not reproduced")
    if needs_reason and not reason.strip():
        if not changed:
            raise InputError(f"The claim {claim_id!r} came out as {outcome!r}: pass a reason=... that says why.")
        reason = "no reason was written for these parameters"
    return Verdict(
        entry,
        outcome,
        measured,
        checks if isinstance(holds, Mapping) else {},
        correction if outcome != "not reproduced" else "",
        # A chapter writes the reason beforehand; it says nothing about a claim that holds.
        reason if needs_reason else "",
        changed,
        erratum,
        difference,
    )


def not_testable(claim_id: str, reason: str, *, parameters: Parameters) -> Verdict:
    """Record that a claim of the ledger cannot be tested, and why (an `InputError` without a reason)."""
    if not isinstance(reason, str) or not reason.strip():
        raise InputError(f"The claim {claim_id!r} was called not testable: pass a sentence why it cannot be tested.")
    return Verdict(_entry(claim_id), "not testable", "", reason=reason, changed=_changed(parameters))


def _entry(claim_id: str) -> LedgerEntry:
    if claim_id in ledger():
        return ledger()[claim_id]
    near = difflib.get_close_matches(str(claim_id), ledger(), n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "dmfkit/chapters/claims.yml lists every id."
    raise InputError(f"The ledger has no claim {claim_id!r}: {hint}")


def _truth_values(claim_id: str, holds: object) -> dict[str, bool]:
    checks = dict(holds) if isinstance(holds, Mapping) else {"the claim holds": holds}
    if not checks:
        raise InputError(f"The claim {claim_id!r} was given no check: pass True, False, or at least one check.")
    for check, value in checks.items():
        if not isinstance(value, (bool, np.bool_)):
            raise InputError(
                f"The claim {claim_id!r} was given {type(value).__name__} {str(value)[:40]!r} for {check!r}: "
                "pass True or False, for example by bool(...) of a comparison."
            )
    return {str(check): bool(value) for check, value in checks.items()}


def _changed(parameters: Parameters) -> dict[str, str]:
    changed = getattr(parameters, "changed", None)
    if not isinstance(changed, Mapping):
        raise InputError(
            f"The verdict was given parameters of type {type(parameters).__name__}: pass the chapter's own, "
            "whose attribute changed maps each changed name to its value."
        )
    return {str(name): str(value) for name, value in changed.items()}
