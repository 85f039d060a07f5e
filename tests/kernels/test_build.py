"""The extension as it was built and as it is loaded: one OpenMP runtime, a readable refusal where it cannot load."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kernel_checks import ISAS, supported

from tapegrad.core import _C

TESTS = Path(__file__).parent


def python(*args: str, **env: str) -> subprocess.CompletedProcess:
    """Runs a fresh interpreter, away from the source folder, which Python would put first on its path."""
    return subprocess.run(
        [sys.executable, *args],
        cwd=TESTS,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def stderr_of(code: str, **env: str) -> str:
    run = python("-c", code, **env)
    assert run.returncode != 0, run.stdout
    return run.stderr


def test_import_works_where_nothing_imported_torch_before():
    run = python("-c", "from tapegrad.core import _C; print(_C.build_info()['torch'])")
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == torch.__version__


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_one_openmp_runtime_is_mapped():
    code = """if True:
        import torch
        from tapegrad.core import _C
        _C.conv2d(torch.ones(8, 8, 32, 32), torch.ones(8, 8, 3, 3), None, (1, 1), (1, 1), (1, 1), 1)
        paths = {line.split()[-1] for line in open("/proc/self/maps") if "/lib" in line}
        print(*sorted(p for p in paths if any(name in p for name in ("libgomp", "libomp", "libiomp"))))
    """
    run = python("-c", code)
    assert run.returncode == 0, run.stderr
    runtimes = run.stdout.split()
    assert len(runtimes) == 1
    assert "torch" in runtimes[0]


def test_parallel_loop_uses_as_many_threads_as_torch_has():
    before = torch.get_num_threads()
    try:
        for threads in (2, 1):
            torch.set_num_threads(threads)
            assert _C.build_info()["threads"] == threads
            assert _C.parallel_threads(64) == threads
    finally:
        torch.set_num_threads(before)


def test_build_info_names_the_build():
    info = _C.build_info()
    assert set(info) == {"torch", "isa", "compiler", "openmp", "threads"}
    assert info["isa"] in ISAS
    assert info["openmp"] >= 201511


def test_another_torch_is_refused_with_the_command_that_mends_it():
    error = stderr_of("import torch; torch.__version__ = '9.8.7+cu1'; import tapegrad")
    built = torch.__version__
    assert f"ImportError: tapegrad's extension was built for torch {built}, found torch 9.8.7+cu1" in error
    assert "pip install --no-build-isolation" in error
    assert f"pip install torch=={built.partition('+')[0]}" in error


def test_same_release_of_torch_for_another_device_is_accepted():
    release = torch.__version__.partition("+")[0]
    run = python("-c", f"import torch; torch.__version__ = '{release}+cu1'; import tapegrad")
    assert run.returncode == 0, run.stderr


def copy_of_loader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """folder/tapegrad with the loader alone, first on the path of the interpreters started next."""
    from tapegrad.core import extension

    package = folder / "tapegrad"
    package.mkdir()
    (package / "core").mkdir()
    (package / "__init__.py").write_text("from .core import extension")
    (package / "core" / "__init__.py").touch()
    shutil.copy(extension.__file__, package / "core")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return package


def test_missing_extension_says_so(tmp_path, monkeypatch):
    package = copy_of_loader(tmp_path, monkeypatch)
    error = stderr_of("import tapegrad")
    assert f"ImportError: tapegrad's extension _C is missing from {package}" in error
    assert "pip install --force-reinstall" in error


def test_source_folder_without_the_extension_says_so(tmp_path, monkeypatch):
    copy_of_loader(tmp_path, monkeypatch)
    (tmp_path / "pyproject.toml").touch()
    error = stderr_of("import tapegrad")
    assert f"ImportError: tapegrad was imported from its source folder {tmp_path}" in error
    assert "pip install ." in error


def test_unloadable_extension_says_so(tmp_path, monkeypatch):
    package = copy_of_loader(tmp_path, monkeypatch)
    name = Path(_C.__file__).name
    (package / name).write_bytes(b"not a shared library")
    assert "ImportError: tapegrad's installation is incomplete" in stderr_of("import tapegrad")
    (package / "_built_for.txt").write_text(torch.__version__)
    error = stderr_of("import tapegrad")
    assert f"ImportError: tapegrad's extension cannot be loaded under torch {torch.__version__}" in error
    assert "pip install --force-reinstall" in error


def test_a_free_threaded_python_is_refused():
    error = stderr_of("import sysconfig; sysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1; import tapegrad")
    assert "ImportError: tapegrad needs the usual build of Python; this one is free-threaded" in error


def test_unknown_isa_is_refused():
    error = stderr_of("import tapegrad", TAPEGRAD_ISA="sse9")
    assert "ImportError: TAPEGRAD_ISA=sse9: expected one that this build and this processor have: " in error


@pytest.mark.parametrize("isa", ISAS)
def test_kernels_under_each_isa(isa):
    if not supported(isa):
        assert f"TAPEGRAD_ISA={isa}: expected one that this build and this processor have" in stderr_of(
            "import tapegrad", TAPEGRAD_ISA=isa
        )
        return
    if _C.build_info()["isa"] == isa:
        return  # those files run under it in this process
    files = ("test_kernels.py", "test_border_kernels.py", "test_product_kernels.py", "test_random_kernels.py")
    files += ("test_elementwise_kernels.py", "test_loss_kernels.py", "test_norm_kernels.py")
    files += ("test_optim_kernels.py", "test_pool_kernels.py", "test_recurrent_kernels.py", "test_vmath.py")
    run = python("-m", "pytest", "-q", "-p", "no:cacheprovider", *files, TAPEGRAD_ISA=isa)
    assert run.returncode == 0, run.stdout[-4000:]
