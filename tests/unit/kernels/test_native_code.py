"""The C++ as a program of its own: under sanitizers, with VNNI and AMX emulated, and as Arm code under QEMU.

What runs on no machine at hand is emulated, and its bits are compared with those of the generic code.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "kernels" / "medloop_kernels" / "cpu"
PROGRAM = Path(__file__).with_name("native") / "check_variants.cpp"
# As in kernels/CMakeLists.txt, but for the sanitized build's -O1.
FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Wno-psabi", "-ffp-contract=off", "-fno-math-errno"]
VARIANTS = {
    "generic": [],
    "avx2": ["-mavx2", "-mfma"],
    "avxvnni": ["-mavx2", "-mfma", "-mavxvnni"],
    "avx512vnni": ["-DMEDLOOP_EMULATE_VNNI"],
    "amx": ["-DMEDLOOP_EMULATE_VNNI"],
    "neon": [],
    "dotprod": ["-march=armv8.2-a+dotprod"],
}
OF_X86 = {"generic", "avx2", "avxvnni", "avx512vnni", "amx"}
OF_ARM = {"generic", "avx512vnni", "amx", "neon", "dotprod"}

on_x86 = pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="flags are those of x86-64")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def build(folder: Path, compiler: str, flags: list[str], own_flags: set[str]) -> Path:
    """Compile the program with all instruction sets; those of another processor come out empty."""
    jobs = [(PROGRAM, []), (SOURCES / "compiled_network.cpp", [])]
    jobs += [
        (SOURCES / f"variant_{name}.cpp", extra if name in own_flags else [])
        for name, extra in VARIANTS.items()
    ]
    objects = []
    for source, extra in jobs:
        objects.append(folder / f"{source.stem}.o")
        command = [compiler, *FLAGS, *flags, *extra, f"-I{SOURCES}", "-c", str(source), "-o", objects[-1]]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stderr[-4000:]
    program = folder / "check_variants"
    subprocess.run([compiler, *flags, *objects, "-o", program, "-pthread"], check=True)
    return program


def run(*command: str | Path) -> set[str]:
    """Names of the instruction sets that gave the generic bits."""
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-4000:]
    return set(finished.stdout.split())


@pytest.mark.slow
@on_x86
@needs_compiler
def test_sanitizers_find_nothing_and_emulated_instructions_give_the_same_bits(tmp_path):
    sanitizers = ["-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    ran = run(build(tmp_path, "g++", sanitizers, OF_X86))
    assert {"generic", "avx512vnni", "amx"} <= ran


@pytest.mark.slow
@pytest.mark.skipif(
    None in {shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")},
    reason="needs a cross-compiler and QEMU: apt install g++-aarch64-linux-gnu qemu-user",
)
def test_arm_code_gives_the_same_bits(tmp_path):
    program = build(tmp_path, "aarch64-linux-gnu-g++", ["-O2", "-static"], OF_ARM)
    assert {"generic", "neon", "dotprod"} <= run("qemu-aarch64", "-cpu", "max", program)
    # A processor without the extension: the probe leaves it out.
    assert "dotprod" not in run("qemu-aarch64", "-cpu", "cortex-a53", program)
