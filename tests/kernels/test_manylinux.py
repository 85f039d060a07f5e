"""csrc/manylinux.cpp: what is linked with it asks for no younger glibc than 2.28, and does the same."""

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "csrc" / "manylinux.cpp"
PROGRAM = r"""
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>
#include <sstream>
int main(int count, char**) {
  std::ostringstream text;
  text << "text " << count;
  std::mutex m;
  std::condition_variable never;
  std::unique_lock<std::mutex> lock(m);
  const auto begin = std::chrono::steady_clock::now();
  const bool woken = never.wait_for(lock, std::chrono::milliseconds(30)) == std::cv_status::no_timeout;
  const bool waited = std::chrono::steady_clock::now() - begin >= std::chrono::milliseconds(30);
  std::mutex other;
  const auto shared = std::make_shared<double>(count);
  const auto copy = shared;
  std::printf("%s|%d%d%d%ld|%.17g %.17g %.17g %.17g", text.str().c_str(), woken, waited, other.try_lock(),
              copy.use_count(), std::exp(*copy), std::log(3.0 * count), std::pow(*copy, 0.7), std::exp(1000.0 * count));
}
"""


@pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc" or not shutil.which("g++"),
    reason="needs g++ for x86-64 with glibc",
)
def test_a_program_linked_with_it_runs_with_glibc_2_28(tmp_path):
    (tmp_path / "p.cpp").write_text(PROGRAM)
    outputs = []
    for name, sources in (("plain", []), ("older", [str(SOURCE)])):
        build = ["g++", "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "p.cpp", *sources, "-o", name, "-pthread"]
        subprocess.run(build, cwd=tmp_path, check=True)
        run = subprocess.run([tmp_path / name], capture_output=True, text=True, check=True)
        outputs.append(run.stdout)
    assert outputs[0] == outputs[1]
    assert outputs[0].startswith("text 1|0112|2.71828182845904")
    if shutil.which("objdump"):
        symbols = subprocess.run(["objdump", "-T", "older"], cwd=tmp_path, capture_output=True, text=True, check=True)
        needed = [tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([0-9.]+)\)", symbols.stdout)]
        # a program's own start is of 2.34; a library has none
        assert needed
        assert max(n for n in needed if n != (2, 34)) <= (2, 28)
        assert not re.search(r"2\.34\).*pthread", symbols.stdout)
