"""What a chapter found about one claim, as a notebook shows it and as the build reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any, Literal

from dmfkit.ledger import LedgerEntry

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
