"""Inference's composition: images in, predictions out, releases and diagnoses followed."""

from __future__ import annotations

from functools import partial

from medloop_model.checkpoint import load_package
from medloop_model.engine import Engine
from medloop_schemas import DriftDiagnosed, ImageAcquired, PredictionMade, ReleaseChanged

from medloop_services.bus.artifacts import ArtifactStore
from medloop_services.bus.catalog import ReleaseCatalog
from medloop_services.bus.context import Context
from medloop_services.bus.frames import pixels_on_arrival
from medloop_services.bus.health import Health
from medloop_services.bus.processor import Follower, MapProcessor, Service
from medloop_services.inference.account import Account
from medloop_services.inference.energy import metered
from medloop_services.inference.models import Model, ModelShelf
from medloop_services.inference.serving import Server
from medloop_services.inference.settings import InferenceSettings
from medloop_services.inference.traffic import counted
from medloop_services.inference.withholding import Withholding


def build(context: Context) -> Service:
    """Return the service."""
    settings = context.load(InferenceSettings)
    catalog = ReleaseCatalog()
    withholding = Withholding(context.health)
    server = Server(
        catalog=catalog,
        shelf=ModelShelf(
            load=partial(load_model, context.artifacts, context.health),
            release_of=catalog.release_of,
            capacity=settings.models_kept,
        ),
        pixels_of=partial(pixels_on_arrival, files=context.artifacts),
        batch_images=settings.batch_images,
        account=Account(context.health),
        withholding=withholding,
    )
    return Service(
        name="inference",
        processors=(
            MapProcessor(
                name="inference", inputs=(ImageAcquired,), outputs=(PredictionMade,), map=server.predict
            ),
        ),
        followers=(
            Follower(ReleaseChanged, catalog.apply),
            Follower(DriftDiagnosed, withholding.apply),
        ),
        waiting_for=catalog.waiting_for,
    )


def load_model(artifacts: ArtifactStore, health: Health, release: ReleaseChanged) -> Model:
    """Return the model of a release, its package fetched and checked against the release's digest.

    Raises:
        CorruptArtifact, ModelError: the package is broken.
        TransientError: the store is away.
    """
    package = load_package(artifacts.fetch(release.package))
    architecture = package.architecture
    side, channels = architecture.image_size, architecture.channels
    return Model(
        classes=architecture.classes,
        image_shape=(side, side) if channels == 1 else (side, side, channels),
        run=metered(counted(Engine(package)), health),
    )
