"""With `init --integrity tree` what was authentic once is not enough: pages put back, made holes or filled in are refused."""

import errno
import json
import os

from harness import equal, on_volume, raises
from harness.layout import FIRST_PAYLOAD, PAGE, PAYLOAD
from harness.process import run
from tamper_rollback import stored


def findings(volume, status=1):
    return json.loads(volume.command("check", volume.lower, "--json", status=status).stdout)["findings"]


def put(lower, offset, data):
    with open(lower, "r+b") as file:
        file.seek(offset)
        file.write(data)


@on_volume(limit=90, needs=["sealed", "lethefs"])
def page_put_back(volume):
    volume.init("--integrity", "tree").mount()
    path, other = volume.mountpoint / "file", volume.mountpoint / "other"
    path.write_bytes(b"old" * 400_000)
    other.write_bytes(b"other" * 1000)
    (lower,) = stored(volume, [path])
    page = lower.read_bytes()[PAGE:2 * PAGE]
    volume.mount()
    equal(json.loads(volume.command("status", volume.mountpoint, "--json").stdout)["integrity"][:1], ["tree"])
    with open(path, "r+b") as file:
        file.seek(FIRST_PAYLOAD + 7)
        file.write(b"new")
    volume.unmount()
    newer = lower.read_bytes()[PAGE:2 * PAGE]
    volume.mount()
    data = path.read_bytes()
    equal((len(data), data[FIRST_PAYLOAD + 7:FIRST_PAYLOAD + 10]), (1_200_000, b"new"))
    volume.unmount()
    put(lower, PAGE, page)
    volume.mount()
    with open(path, "rb") as file:
        raises(errno.EIO, os.pread, file.fileno(), 10, FIRST_PAYLOAD + 100)
        # Far behind: readahead takes nothing of it along.
        equal(os.pread(file.fileno(), 3, 900_000), b"old")
    equal(other.read_bytes(), b"other" * 1000)
    volume.unmount()
    (one,) = findings(volume)
    equal((one["path"], one["page"]), ("/file", 1))
    assert "page tree" in one["reason"], one
    put(lower, PAGE, newer)
    volume.check()


@on_volume(limit=90, needs=["sealed", "lethefs"])
def pages_of_a_sparse_file(volume):
    """One made a hole, and a hole filled with what was there before it was punched."""
    volume.init("--integrity", "tree").mount()
    path = volume.mountpoint / "sparse"
    with open(path, "wb") as file:
        file.write(b"start" * 2000)
        file.seek(500 * PAYLOAD)
        file.write(b"end")
    (lower,) = stored(volume, [path])
    page = lower.read_bytes()[PAGE:2 * PAGE]
    put(lower, PAGE, bytes(PAGE))
    volume.mount()
    raises(errno.EIO, path.read_bytes)
    volume.unmount()
    equal([one["page"] for one in findings(volume)], [1])
    put(lower, PAGE, page)
    volume.mount()
    run(["fallocate", "-p", "-o", str(FIRST_PAYLOAD), "-l", str(PAYLOAD), path])
    equal(path.read_bytes()[FIRST_PAYLOAD:FIRST_PAYLOAD + PAYLOAD], bytes(PAYLOAD))
    volume.unmount()
    put(lower, PAGE, page)
    volume.mount()
    raises(errno.EIO, path.read_bytes)
    volume.unmount()


@on_volume(limit=90, needs=["sealed", "lethefs"])
def header_and_nodes_put_back(volume):
    """Each alone fits nothing that is there."""
    volume.init("--integrity", "tree").mount()
    path = volume.mountpoint / "file"
    path.write_bytes(b"old" * 400_000)
    (lower,) = stored(volume, [path])
    (nodes,) = (volume.lower / ".lethefs/trees").iterdir()
    older = lower.read_bytes()[:512], nodes.read_bytes()
    volume.mount()
    with open(path, "r+b") as file:
        file.seek(600_000)
        file.write(b"new")
    volume.unmount()
    newer = lower.read_bytes()[:512], nodes.read_bytes()
    for header, tree in ((older[0], newer[1]), (newer[0], older[1]), older):
        put(lower, 0, header)
        nodes.write_bytes(tree)
        volume.mount()
        raises(errno.EIO, path.read_bytes)
        volume.unmount()
        assert findings(volume), "nothing was found"
    nodes.unlink()
    put(lower, 0, newer[0])
    volume.mount()
    raises(errno.EIO, path.read_bytes)
    volume.unmount()
    nodes.write_bytes(newer[1])
    nodes.chmod(0o600)
    volume.check()
    volume.mount()
    equal(path.read_bytes()[600_000:600_003], b"new")
    volume.unmount()


@on_volume(limit=120, needs=["sealed", "lethefs", "daemon"])
def a_crash_brings_back_nothing_old(volume):
    """After SIGKILL what was flushed is there, and what had been stored before is refused in its place."""
    volume.init("--integrity", "tree").mount()
    path = volume.mountpoint / "file"
    path.write_bytes(b"old" * 40_000)
    (lower,) = stored(volume, [path])
    page = lower.read_bytes()[5 * PAGE:6 * PAGE]
    volume.mount()
    with open(path, "r+b") as file:
        file.seek(5 * PAYLOAD)
        file.write(b"first")
    volume.unmount().mount()
    file = open(path, "r+b")
    file.seek(5 * PAYLOAD)
    file.write(b"again")
    file.flush()
    os.fsync(file.fileno())
    volume.kill()
    try:
        file.close()
    except OSError:
        pass
    volume.mount()
    equal(path.read_bytes()[5 * PAYLOAD:5 * PAYLOAD + 5], b"again")
    volume.unmount()
    newer = lower.read_bytes()[5 * PAGE:6 * PAGE]
    put(lower, 5 * PAGE, page)
    volume.mount()
    raises(errno.EIO, path.read_bytes)
    volume.unmount()
    put(lower, 5 * PAGE, newer)
    volume.command("check", volume.lower, "--repair")
    volume.check()
