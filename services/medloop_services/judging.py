"""What an adaptation was worth: the base, the released and an oracle model on both domains' test images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medloop_model.checkpoint import ModelPackage, load_package
from medloop_model.engine import Engine
from medloop_model.training.oracle import OracleSettings, train_oracle

from medloop_services.replay.scenario import Stream
from medloop_services.replay.split import Split
from medloop_services.report.evaluation import Evaluation, evaluate
from medloop_services.report.summary import Domains


def judge(
    stream: Stream,
    base: Path,
    released: Path | None,
    *,
    oracle: OracleSettings | None,
    announce: Callable[[str], None],
) -> Domains:
    """Evaluate the models of a run on the test images, which no part of the loop has seen.

    Args:
        stream: what was streamed; it knows both domains.
        base: the package that served before.
        released: the package that became stable, if any.
        oracle: how the same network is trained offline on both domains, or None to leave it out.
        announce: told what takes long.
    """
    names = stream.classes_after

    def on(package: ModelPackage, images: Split) -> Evaluation:
        return evaluate(Engine(package), images.images, images.labels, names)

    base_package = load_package(base, parts=("packed", "latent"))
    better = load_package(released) if released else None
    best = None
    if oracle is not None:
        old, new = stream.domains.oracle_old, stream.domains.oracle_new
        announce(f"training the oracle on {len(old) + len(new)} labelled images of both domains")
        best = train_oracle(base_package, (old.images, old.labels), (new.images, new.labels), names, oracle)
    return Domains(
        before=on(base_package, stream.before_test),
        drifted=on(base_package, stream.new_test),
        after=on(better, stream.new_test) if better else None,
        oracle=on(best, stream.new_test) if best else None,
        old_domain_before=on(base_package, stream.old_test),
        old_domain_after=on(better, stream.old_test) if better else None,
    )
