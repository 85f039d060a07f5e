"""`tg.save` onto whatever can stand at a path; killed at any moment it leaves the old file or the new one."""

import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest
import torch

import tapegrad as tg
from tapegrad.files import atomic

OLD, NEW = {"a": torch.zeros(2)}, {"a": torch.ones(3)}


def saved(path):
    return tg.load(path)["a"].tolist()


def test_a_symbolic_link_is_written_through(tmp_path):
    (tmp_path / "far").mkdir()
    real, link, chain = tmp_path / "far" / "real", tmp_path / "link", tmp_path / "chain"
    link.symlink_to("far/real")
    chain.symlink_to(link)
    tg.save(OLD, chain)  # through a link that leads nowhere yet
    assert saved(real) == [0, 0]
    tg.save(NEW, chain)
    assert saved(real) == [1, 1, 1]
    assert link.is_symlink()
    assert chain.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["chain", "far", "link"]
    assert os.listdir(tmp_path / "far") == ["real"]
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="symbolic links"):
        tg.save(NEW, loop)


def test_pipes_and_devices_are_written_to(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=tg.save, args=(NEW, pipe), daemon=True)
    writer.start()
    assert saved(pipe) == [1, 1, 1]
    writer.join(10)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    tg.save(NEW, os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    read, write = os.pipe()  # a path that leads to what has no name
    tg.save(NEW, f"/proc/self/fd/{write}")
    os.close(write)
    with os.fdopen(read, "rb") as file:
        (tmp_path / "piped").write_bytes(file.read())
    assert saved(tmp_path / "piped") == [1, 1, 1]


def test_hard_links_go_on_naming_one_file(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    tg.save(NEW, first)
    second.hardlink_to(first)
    tg.save(OLD, second)
    assert saved(first) == saved(second) == [0, 0]
    assert first.samefile(second)


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o660, 0o755])
def test_mode_and_owner_are_kept(tmp_path, mode):
    path = tmp_path / "values"
    before = os.umask(0o027)
    try:
        tg.save(OLD, path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640  # a new file: as open() makes one
        path.chmod(mode)
        if os.geteuid() == 0:
            os.chown(path, 12345, 54321)
        old = path.stat()
        tg.save(NEW, path)
    finally:
        os.umask(before)
    new = path.stat()
    assert (new.st_mode, new.st_uid, new.st_gid) == (old.st_mode, old.st_uid, old.st_gid)
    assert new.st_ino != old.st_ino  # replaced
    assert saved(path) == [1, 1, 1]


def test_names_as_long_as_the_file_system_takes(tmp_path):
    for name in ("n" * 255, "ä" * 127):
        tg.save(NEW, tmp_path / name)
        tg.save(OLD, tmp_path / name)
        assert saved(tmp_path / name) == [0, 0]
    with pytest.raises(OSError, match="too long"):
        tg.save(NEW, tmp_path / ("n" * 256))


def test_where_no_file_can_be_made_the_old_one_is_written(tmp_path, monkeypatch):
    path = tmp_path / "values"
    tg.save(OLD, path)
    before = path.stat().st_ino

    def refused(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(atomic, "_new", refused)
    tg.save(NEW, path)
    assert saved(path) == [1, 1, 1]
    assert path.stat().st_ino == before
    with pytest.raises(PermissionError):
        tg.save(NEW, tmp_path / "another")
    monkeypatch.setattr(os, "access", lambda *args: False)  # as of a read-only file
    monkeypatch.setattr("builtins.open", refused)
    with pytest.raises(PermissionError):
        tg.save(OLD, path)
    monkeypatch.undo()
    assert saved(path) == [1, 1, 1]


def test_directories_and_missing_ones_are_said_to_be(tmp_path):
    with pytest.raises(IsADirectoryError):
        tg.save(NEW, tmp_path)
    with pytest.raises(FileNotFoundError, match="missing'"):
        tg.save(NEW, tmp_path / "missing" / "values")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        tg.save(NEW, tmp_path / "file" / "values")
    assert os.listdir(tmp_path) == ["file"]


# The module alone: importing the package takes longer than all that is tested here.
IMPORT = f"""
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("atomic", {atomic.__file__!r})
atomic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(atomic)
"""
SAVING = f"""{IMPORT}
if sys.argv[2] == "named":
    del os.O_TMPFILE  # a file system without unnamed files
for i in range(1000000):
    atomic.write(sys.argv[1], bytes([i % 256]) * 4_000_000)
    if i == 1:
        print("begun", flush=True)
"""


@pytest.mark.parametrize("kind", ["unnamed", "named"])
def test_a_killed_process_leaves_whole_files(tmp_path, kind):
    path = tmp_path / "values"
    left = 0
    for pause in (0.005, 0.0123, 0.0311):
        process = subprocess.Popen([sys.executable, "-c", SAVING, path, kind], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        content = path.read_bytes()
        assert len(content) == 4_000_000
        assert content == content[:1] * len(content)
        left += len(os.listdir(tmp_path)) - 1
    if kind == "unnamed":  # at most between getting its name and its place
        assert left <= 1
    (tmp_path / ".tapegrad-left").write_bytes(b"by a killed process")
    tg.save(NEW, path)
    assert [name for name in os.listdir(tmp_path) if (tmp_path / name).stat().st_size] == ["values"]


def test_many_processes_may_save_beside_each_other(tmp_path):
    source = f"{IMPORT}\nfor i in range(20): atomic.write(sys.argv[1], b'x' * 100_000)"
    paths = [tmp_path / "same", tmp_path / "same", tmp_path / "other"]
    processes = [subprocess.Popen([sys.executable, "-c", source, path]) for path in paths]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert sorted(os.listdir(tmp_path)) == ["other", "same"]
    assert {path.read_bytes() for path in paths} == {b"x" * 100_000}


# --- content -----------------------------------------------------------------------------------------------------


def test_every_kind_of_tensor_comes_back_bit_for_bit(tmp_path):
    base = torch.randn(4, 6, dtype=torch.float64)
    nan = torch.tensor([0x7FC00001, 0x7F800000, -0x80000000, 1], dtype=torch.int64).to(torch.int32).view(torch.float32)
    values = {
        "0-dim": torch.tensor(True),
        "empty": torch.zeros(3, 0, 2, dtype=torch.int16),
        "transposed": base.T,
        "strided": base[1::2, ::3],
        "expanded": torch.tensor([1.5]).expand(2, 3),
        "shared": base,
        "again": base,
        "odd bits": nan,
        "parameter": tg.nn.Parameter(torch.ones(2)),
        "ünï\ncode": torch.arange(3, dtype=torch.int8),
        "half \ud800 a pair": torch.tensor([2**63 - 1, -(2**63)]),
    }
    tg.save(values, tmp_path / "flat")
    tg.save({"in": [values, 3]}, tmp_path / "nested")
    for read in (tg.load(tmp_path / "flat"), tg.load(tmp_path / "nested")["in"][0]):
        assert list(read) == list(values)
        for name, value in values.items():
            value = getattr(value, "data", value).detach()
            assert (read[name].dtype, read[name].shape) == (value.dtype, value.shape), name
            bits = {torch.float64: torch.int64, torch.float32: torch.int32}.get(value.dtype, value.dtype)
            assert torch.equal(read[name].data.contiguous().view(bits), value.contiguous().view(bits)), name
    read["shared"].data.zero_()  # storage of its own
    assert torch.equal(read["again"].data, base)
    assert base.any()


def test_what_cannot_be_saved_is_refused_by_name(tmp_path):
    hollow = torch.ones(3)
    hollow.untyped_storage().resize_(0)
    with pytest.raises(tg.ShapeError, match=r"save: x\.0 of shape \[3\] needs 12 bytes of storage; it has 0"):
        tg.save({"x": [hollow]}, tmp_path / "values")
    endless = {}
    endless["self"] = endless
    with pytest.raises(tg.ArgumentError, match="save: obj is nested too deeply, or contains itself"):
        tg.save(endless, tmp_path / "values")
    assert os.listdir(tmp_path) == []


def test_damaged_bytes_are_an_error_of_ours_or_other_values(tmp_path):
    path, draw = tmp_path / "values", random.Random(0)
    tg.save({"a": torch.ones(3), "b": [torch.zeros(2, 0), 1.5, {"c": torch.tensor(True)}]}, path)
    whole = path.read_bytes()
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.choice((draw.randrange(256), 0, 255, *b'0-{}[],"'))
        path.write_bytes(damaged)
        try:
            tg.load(path)
        except (tg.StateError, tg.DTypeError) as error:
            assert str(error).startswith("load: ")  # noqa: PT017  either may come
