#!/usr/bin/env bash
# aarch64.sh [pytest arguments]: cross-builds the extension for 64-bit ARM and runs tests under emulation (hours).
# Needs Debian with g++-aarch64-linux-gnu, qemu-user, cmake, ninja-build and pip. An arm64 Python comes from Debian's
# packages and torch from pip, into build/aarch64; nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD/build/aarch64 root=$PWD/build/aarch64/root site=$PWD/build/aarch64/site
torch=2.9.1 # its wheel for aarch64 is built without CUDA
mkdir -p "$here"/{apt/lists/partial,cache/archives/partial,debs,wheels} "$root" "$site"

if [ ! -x "$root/usr/bin/python3.11" ]; then
  touch "$here/apt/status"
  options=(-o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Dir::State="$here/apt"
    -o Dir::State::status="$here/apt/status" -o Dir::Cache="$here/cache" -o Debug::NoLocking=1)
  apt-get "${options[@]}" -q update
  (cd "$here/debs" && apt-get "${options[@]}" -q download python3.11{,-minimal,-dev} libpython3.11-{minimal,stdlib,dev} \
    libc6 libstdc++6 libgcc-s1 libgomp1 libatomic1 libexpat1 zlib1g libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 \
    libcrypt1 libuuid1 libncursesw6 libtinfo6)
  for deb in "$here"/debs/*.deb; do dpkg-deb -x "$deb" "$root"; done
fi
if [ ! -d "$site/torch" ]; then
  # by name, because pip would take the markers of this machine for those of the other
  pip download -q --no-deps -d "$here/wheels" --only-binary=:all: --python-version 3.11 \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
    "torch==$torch" "numpy==2.3.*" filelock fsspec jinja2 markupsafe "mpmath==1.3.*" networkx sympy typing_extensions \
    packaging safetensors pytest pluggy iniconfig pygments hypothesis sortedcontainers "setuptools<82"
  for wheel in "$here"/wheels/*.whl; do unzip -q -o "$wheel" -d "$site"; done
fi
cat > "$here/python" <<END
#!/bin/sh
exec env PYTHONPATH="$site\${PYTHONPATH:+:\$PYTHONPATH}" qemu-aarch64 -L "$root" "$root/usr/bin/python3.11" "\$@"
END
chmod +x "$here/python"

cmake -S . -B "$here/cmake" -G Ninja -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
  -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_CXX_FLAGS="-isystem $root/usr/include" \
  -DPython_EXECUTABLE="$here/python" -DPython_INCLUDE_DIR="$root/usr/include/python3.11"
cmake --build "$here/cmake" --target _C
rm -rf "$here/package" && mkdir "$here/package" && cp -r tapegrad "$here/package/" && rm -f "$here"/package/tapegrad/_C.*.so
cp "$here"/cmake/_C.*.so "$here/cmake/_built_for.txt" "$here/package/tapegrad/"

[ $# -gt 0 ] || set -- tests/kernels --deselect tests/kernels/test_build.py
OMP_NUM_THREADS=1 PYTHONPATH="$here/package" "$here/python" -P -m pytest -q -p no:cacheprovider "$@"
