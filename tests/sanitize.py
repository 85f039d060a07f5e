"""The kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer: ``python tests/sanitize.py``.

Builds the extension with both in ``build/sanitize`` (several minutes) beside a copy of the Python files, and runs every
``tests/kernels/test_*kernels.py`` there, under each instruction set the machine has. Further arguments go to pytest.
Exits with pytest's status; the first finding ends the process with a report of where it was.
``--fuzz CASES`` runs ``tests/kernels/fuzz_bindings.py`` there instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests" / "kernels"
sys.path.append(str(ROOT / "tests" / "helpers"))

from kernel_checks import ISAS, supported  # noqa: E402

BUILD = ROOT / "build" / "sanitize"


def build() -> Path:
    """Builds the extension; the folder to import it from."""
    configure = ["cmake", "-S", ROOT, "-B", BUILD, "-G", "Ninja", f"-DPython_EXECUTABLE={sys.executable}"]
    subprocess.run([*configure, "-DTG_SANITIZE=ON"], check=True)
    subprocess.run(["cmake", "--build", BUILD, "--target", "_C"], check=True)
    package = BUILD / "site" / "tapegrad"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "tapegrad", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for built in (*BUILD.glob("_C.*.so"), BUILD / "_built_for.txt"):
        shutil.copy2(built, package)
    return package.parent


def library(name: str) -> str:
    """The compiler's sanitizer runtime, which must be in the process before Python is."""
    return subprocess.run(
        ["c++", f"-print-file-name={name}"], check=True, capture_output=True, text=True
    ).stdout.strip()


def main(arguments: list[str]) -> int:
    """Build, then run the tests under each instruction set until one fails."""
    env = os.environ | {
        "PYTHONPATH": str(build()),
        "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
        # Python and torch keep memory to the end; torch pairs new and free oddly; one test asks for too much
        "ASAN_OPTIONS": "detect_leaks=0:alloc_dealloc_mismatch=0:allocator_may_return_null=1"
        ":max_allocation_size_mb=4096",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    if arguments[:1] == ["--fuzz"]:
        fuzz = [sys.executable, TESTS / "fuzz_bindings.py", "--cases", *arguments[1:]]
        return subprocess.run(fuzz, cwd=TESTS, env=env, check=False).returncode
    files = sorted(path.name for path in TESTS.glob("test_*_kernels.py"))
    files += ["test_kernels.py", "test_vmath.py"]
    for isa in filter(supported, ISAS):
        print(f"--- {isa}", flush=True)
        # -s: what pytest captured dies with the process, and the report with it
        run = [sys.executable, "-m", "pytest", "-q", "-x", "-s", "-p", "no:cacheprovider", *files, *arguments]
        status = subprocess.run(run, cwd=TESTS, env=env | {"TAPEGRAD_ISA": isa}, check=False).returncode
        if status != 0:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
