"""Settle the papers' claims by what a chapter measured.

A chapter calls `claim` once per claim that it settles. The call shows a box with the verdict, and
leaves the same verdict in machine-readable form in the notebook's output, from which the build
makes the scoreboard.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from dmfkit.errors import InputError
from dmfkit.ledger import LedgerEntry, ledger
from dmfkit.verdict import Difference, Erratum, Outcome, Verdict

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
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "dmfkit/claims.yml lists every id."
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
