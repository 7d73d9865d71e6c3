"""What Theorem 3 predicts at the iterates of a discrete method: a recorder for descent and flow at full size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from dmfkit.problems import Problem
from dmfkit.record import Snapshot, gradient_magnitude
from dmfkit.signed_svd import SignedSVD
from dmfkit.theory.end_to_end import product_velocity
from dmfkit.theory.singular_values import singular_value_velocity


@dataclass(frozen=True)
class SingularValueSpeeds:
    """The `count` largest singular values and two velocities of each, and how unbalanced the factors are.

    ``predicted_velocity`` is Eq (7) of Arora et al. (2019), which assumes balanced factors. ``flow_velocity`` is that
    of the gradient flow through the factors as they are, ``u_r^T (dW/dt) v_r`` by the product rule.
    ``largest_imbalance`` is the greatest Frobenius norm of ``W_{j+1}^T W_{j+1} - W_j W_j^T``.
    """

    count: int = 5

    @property
    def dims(self) -> Mapping[str, tuple[str, ...]]:
        return {
            "singular_value": ("index",),
            "predicted_velocity": ("index",),
            "flow_velocity": ("index",),
            "largest_imbalance": (),
        }

    def magnitudes(self, problem: Problem) -> Mapping[str, float]:
        # Velocities are a gradient times powers of singular values, up to the square as the depth grows; what is
        # balanced are squares of factors.
        size = problem.magnitude
        velocity = gradient_magnitude(problem) * max(size, size**2)
        return {
            "singular_value": size,
            "predicted_velocity": velocity,
            "flow_velocity": velocity,
            "largest_imbalance": max(1.0, size),
        }

    def __call__(self, snapshot: Snapshot) -> dict[str, Tensor]:
        left, values, right = snapshot.svd
        svd, factorization = SignedSVD(left, values, right.mT), snapshot.factorization
        gradient = snapshot.gradient
        velocity = product_velocity(factorization, [-part for part in factorization.pull_back(gradient)])
        imbalance = factorization.imbalance()
        return {
            "singular_value": values[:, : self.count],
            "predicted_velocity": singular_value_velocity(svd, gradient, factorization.depth)[:, : self.count],
            "flow_velocity": svd.rotate(velocity).diagonal(dim1=-2, dim2=-1)[:, : self.count],
            "largest_imbalance": imbalance.amax(dim=1) if imbalance.shape[1] else values.new_zeros(len(values)),
        }
