"""Compiles the kernels ahead of time: `python -m medloop_kernels.cuda.build --nvcc NVCC`, or `make cuda`.

For each source a cubin an architecture, and PTX, which a driver compiles for any later one.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence

from medloop_kernels.cuda.images import COMPILED, PTX, SOURCES, image_file
from medloop_kernels.cuda.kernels import SOURCE_OF

ARCHITECTURES = ("sm_80", "sm_87", "sm_90")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile what is missing; fail on a warning, a spilled register or a stack frame."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nvcc", default="nvcc", help="the compiler; CUDA 12 or newer")
    nvcc = parser.parse_args(arguments).nvcc
    COMPILED.mkdir(exist_ok=True)
    sources = sorted(set(SOURCE_OF.values()))
    jobs = [(source, architecture) for source in sources for architecture in (*ARCHITECTURES, PTX)]
    for stale in set(COMPILED.iterdir()) - {image_file(*job) for job in jobs}:
        stale.unlink()
    return max(_compiled(nvcc, *job) for job in jobs)


def _compiled(nvcc: str, source: str, architecture: str) -> int:
    target = image_file(source, architecture)
    if target.is_file():
        print(f"{target.name}: there already")
        return 0
    kind = "-ptx" if architecture == PTX else "-cubin"
    command = [nvcc, "-std=c++17", "-O3", f"-arch={architecture}", kind, "-Xptxas=-v", "-Werror=all-warnings"]
    part = target.with_suffix(".part")
    finished = subprocess.run(
        [*command, str(SOURCES / f"{source}.cu"), "-o", str(part)],
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        print(finished.stderr, file=sys.stderr)
        return 1
    wasted = [
        line for line in finished.stderr.splitlines() if re.search(r"[1-9]\d* bytes (stack|spill)", line)
    ]
    if wasted:
        print(f"{target.name}: registers do not suffice: {wasted}", file=sys.stderr)
        return 1
    part.rename(target)
    registers = re.findall(r"Used (\d+) registers", finished.stderr)
    print(
        f"{target.name}: {target.stat().st_size:,} bytes; registers {', '.join(registers) or 'chosen later'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
