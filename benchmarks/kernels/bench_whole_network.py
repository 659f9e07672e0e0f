"""Speed of whole networks against ONNX Runtime and torch, and the distance to this machine's limit.

    python benchmarks/kernels/bench_whole_network.py             a table
    python benchmarks/kernels/bench_whole_network.py --json      one JSON line a figure

One thread; ours and its peers alternate. Every peer computes the same network: ONNX Runtime in float32 and
with dynamic int8 quantisation (`make bench-peers` installs it), torch in float32. "same fusion, int8" is our
own engine with the same values stored as bytes: that ratio is what ternary weights bring by themselves.

The limit is what the arithmetic alone would take: multiply-accumulates of the quantised layers and of those
in float, each at the rate that fixed registers reach on this machine, measured in the same run. The control
shape is the published ViT-tiny's (28 px in patches of 4, width 192, 12 blocks) with multi-query attention and
no class token, hence 49 tokens.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from figures import Figure, compare, run

import numpy as np  # isort: skip
import torch
from medloop_kernels import (
    BackendUnavailable,
    BlockWeights,
    CompiledNetwork,
    EnergyMeter,
    EnergyUnavailable,
    LinearWeights,
    NetworkWeights,
    open_meter,
    pack,
    select,
    unpack,
)
from medloop_kernels.cpu import implementation
from medloop_kernels.cpu.network import layer_of
from medloop_model.architecture import Architecture, paper, ward
from medloop_model.checkpoint import ModelPackage, save_package
from medloop_model.engine import Engine
from medloop_model.network import BiTMedViT
from medloop_model.training.export import export_package, network_from
from numpy.typing import NDArray
from work import multiply_accumulates

CLASSES = ("normal", "opacity")
CONTROL = Architecture(28, 1, 4, width=192, depth=12, heads=3, mlp_ratio=4, classes=CLASSES)
SHAPES = {
    "control": CONTROL,
    "paper": paper(1, CLASSES),
    "paper, all ternary": paper(1, CLASSES).all_ternary(),
    "ward": ward(28, 1, CLASSES),
}
INT8, ORT8, ORT32, TORCH = "same fusion, int8", "ONNX Runtime int8", "ONNX Runtime float32", "torch float32"
# Shape and batch, the goals against each peer, and the share of the rounds that so slow a network gets.
CASES = [
    ("control", 1, {ORT8: 2.0}, 1.0),
    ("control", 8, {ORT8: 1.6}, 0.4),
    ("paper", 1, {ORT8: 3.0, TORCH: 3.0}, 0.15),
    ("paper, all ternary", 1, {}, 0.15),
    ("ward", 1, {}, 1.0),
]
PRODUCTS = [(49, 192, 320), (49, 192, 192), (49, 192, 768), (49, 768, 192), (64, 512, 2048), (64, 2048, 512)]
SHARE_OF_PEAK = 0.75
MOST_MEMORY = 120.0
ENERGY_S = 3.0
MEMORY_PROGRAM = """
import sys
import numpy as np
from pathlib import Path
from medloop_model.checkpoint import load_package
from medloop_model.engine import Engine
engine = Engine(load_package(Path(sys.argv[1])))
engine(np.zeros((1, 224, 224), dtype=np.uint8))
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) / 1024)
"""


def int8_linear(linear: LinearWeights) -> LinearWeights:
    """The same values as bytes."""
    if linear.weights.dtype != np.uint8:
        return linear
    return replace(linear, weights=unpack(linear.weights, linear.inputs))


def int8_twin(weights: NetworkWeights) -> NetworkWeights:
    """The same network, its ternary weights as bytes."""
    blocks = tuple(
        BlockWeights(*map(int8_linear, (block.qkv, block.out, block.fc1, block.fc2)))
        for block in weights.blocks
    )
    return replace(weights, blocks=blocks)


def bench_products(seed: int, rounds: int) -> Iterator[Figure]:
    """The products inside a network, as a share of the peak of their instruction.

    The goal is of the peak of the vectors' instruction, beside which AMX also prints its own.
    """
    variant = implementation(select().variant)
    peaks = {name: implementation(name).peak()[0] for name in peaks_of(variant.name)}
    generator = np.random.default_rng(seed)
    for tokens, inputs, outputs in PRODUCTS:
        weights = generator.integers(-1, 2, (outputs, inputs), dtype=np.int8)
        one = np.ones(outputs, dtype=np.float32)
        linear = LinearWeights(weights, inputs, one, one)
        seconds = variant.time_product(layer_of(replace(linear, weights=pack(weights))), tokens, 10 * rounds)
        control = variant.time_product(layer_of(linear), tokens, 10 * rounds)
        name, work_done = (
            f"product {tokens}x{inputs}x{outputs} {variant.name}",
            tokens * inputs * outputs / 1e9,
        )
        figure = partial(Figure, name, work_done / seconds, "GMAC/s", limit=None, seed=seed, n=10 * rounds)
        for vectors, peak in peaks.items():
            if peak > 0:
                goal = None if vectors == "amx" else SHARE_OF_PEAK
                share = work_done / seconds / peak
                met = goal is None or share >= goal
                yield figure(f"peak of {vectors}", peak, share, goal=goal, met=met)
        yield figure(INT8, work_done / control, control / seconds, goal=None, met=True)


def peaks_of(variant: str) -> tuple[str, ...]:
    return ("avx512vnni", "amx") if variant == "amx" else (variant,)


def bench_networks(seed: int, rounds: int) -> Iterator[Figure]:
    """Every shape against every peer, then the bytes it moves and holds."""
    torch.set_num_threads(1)
    kernels = select()
    if kernels.compile is None:
        raise BackendUnavailable(f"{kernels.name} compiles no networks: unset MEDLOOP_KERNELS.")
    integer_peak, floating_peak = implementation(kernels.variant).peak()
    meter = energy_meter()
    for shape, batch, goals, share in CASES:
        architecture = SHAPES[shape]
        package = export_package(BiTMedViT(architecture, seed), {})
        engine, network = Engine(package), network_from(package)
        twin = kernels.compile(int8_twin(engine.layers.weights()), 1)
        size = architecture.image_size
        images = np.random.default_rng(seed).integers(0, 256, (batch, size, size, 1), dtype=np.uint8)
        pixels = images.astype(np.float32) / np.float32(255)
        peers: dict[str, Callable[[], object]] = {
            INT8: partial(twin, images),
            TORCH: partial(network, torch.from_numpy(pixels)),
        }
        peers |= onnx_peers(engine, pixels)
        limit = None
        if integer_peak > 0:
            quantized, floats = multiply_accumulates(architecture)
            limit = (quantized / integer_peak + floats / floating_peak) / 1e9
        with torch.inference_mode():
            yield from compare(
                f"{shape} batch {batch} {kernels.variant}",
                "ms/image",
                partial(engine, images),
                peers,
                seed=seed,
                rounds=max(3, round(rounds * share)),
                scale=1e3 / batch,
                goals=goals,
                limit=None if limit is None else limit * batch,
            )
        if batch == 1:
            yield from bytes_of(shape, engine, twin, images, seed)
            if meter is not None:
                yield energy_of(shape, meter, partial(engine, images), partial(twin, images), seed)
        if shape == "paper" and Path("/proc/self/status").exists():
            yield memory_of(package, seed)


def onnx_peers(engine: Engine, pixels: NDArray[np.float32]) -> dict[str, Callable[[], object]]:
    try:
        from onnx_peer import OnnxPeer  # noqa: PLC0415  (a peer is optional)
    except ImportError as missing:
        print(f"left out: ONNX Runtime ({missing}); `make bench-peers` installs it", file=sys.stderr)
        return {}
    return {
        ORT8: partial(OnnxPeer(engine.layers, int8=True), pixels),
        ORT32: partial(OnnxPeer(engine.layers, int8=False), pixels),
    }


def bytes_of(
    shape: str, engine: Engine, twin: CompiledNetwork, images: NDArray[np.uint8], seed: int
) -> Iterator[Figure]:
    """Bytes that one image moves between layers and memory, counted, and bytes of the weights."""
    moved = []
    for compiled in (engine.compiled, twin):
        before = compiled.traffic
        compiled(images)
        after = compiled.traffic
        moved.append((after.weights - before.weights, after.activations - before.activations))
    (weights, activations), (twin_weights, _) = moved
    for name, ours, control in (
        (f"{shape}: weights read", weights, twin_weights),
        (f"{shape}: activations moved", activations, activations),
        (f"{shape}: weights in memory", engine.compiled.weight_bytes, twin.weight_bytes),
    ):
        ratio = control / ours
        yield Figure(name, ours / 1e6, "MB/image", INT8, control / 1e6, ratio, None, None, True, seed, 1)


def energy_meter() -> EnergyMeter | None:
    try:
        return open_meter()
    except EnergyUnavailable as unavailable:
        print(f"left out: joules per image ({unavailable})", file=sys.stderr)
        return None


def energy_of(
    shape: str, meter: EnergyMeter, ours: Callable[[], object], twin: Callable[[], object], seed: int
) -> Figure:
    """Energy of the whole machine while it classifies one image after the other, for some seconds each."""
    millijoules, images = millijoules_per_image(meter, ours)
    control, _ = millijoules_per_image(meter, twin)
    ratio = control / millijoules
    return Figure(
        f"{shape}: energy", millijoules, "mJ/image", INT8, control, ratio, None, None, True, seed, images
    )


def millijoules_per_image(meter: EnergyMeter, classify: Callable[[], object]) -> tuple[float, int]:
    """Energy of an image, mJ, and how many images that was measured on."""
    before, end, images = meter.joules(), time.monotonic() + ENERGY_S, 0
    while time.monotonic() < end:
        classify()
        images += 1
    return 1e3 * (meter.joules() - before) / images, images


def memory_of(package: ModelPackage, seed: int) -> Figure:
    """Peak memory of a process that loads the engine and one model, and classifies one image.

    Read from Linux's /proc: what getrusage says includes the process that forked it.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_package(ModelPackage(package.architecture, packed=package.packed), path)
        command = [sys.executable, "-c", MEMORY_PROGRAM, str(path)]
        megabytes = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    ratio = MOST_MEMORY / megabytes
    return Figure(
        "paper: process", megabytes, "MiB", "bound", MOST_MEMORY, ratio, None, 1.0, ratio >= 1, seed, 1
    )


if __name__ == "__main__":
    run(__doc__, 40, [bench_products, bench_networks])
