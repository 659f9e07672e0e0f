"""FedProx: on its own data a site may learn, but not run away from what the sites share.

FedProx adds μ/2·‖w − w_t‖² to a site's loss, w_t being the round's base (Li et al., arXiv 1812.06127, eq. 2).
EWC adds λ·Σ F_i·(w_i − w_t,i)². So a site trains by FedProx when every weight matters alike: F = 1, λ = μ/2.
That F is nobody's Fisher information, so nothing of it is kept beside what is measured afterwards.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medloop_model.checkpoint import ModelPackage
from medloop_model.training.plan import TrainingPlan


def with_proximal_term(
    package: ModelPackage, plan: TrainingPlan, strength: float
) -> tuple[ModelPackage, TrainingPlan]:
    """A model and a plan whose EWC penalty is FedProx's proximal term.

    Args:
        package: the round's base, with its latent weights; it is trained from there.
        plan: its own λ gives way, since both terms hold the same weights.
        strength: μ ≥ 0.
    """
    alike = {name: np.ones(weight.shape, np.float16) for name, weight in package.latent.items()}
    return replace(package, fisher=alike), replace(plan, ewc_lambda=strength / 2, fisher_decay=0.0)
