"""The systems under test: how each is made, mounted, and read in a state after a crash."""

import errno
import json
import os
import subprocess
import time
from pathlib import Path

from . import device

REPOSITORY = Path(__file__).resolve().parents[3]


def program(name):
    """A built program; `LETHEFS` names the one under test, and the others stand beside it."""
    path = Path(os.environ.get("LETHEFS", REPOSITORY / ".build/release/lethefs")).resolve().with_name(name)
    if not path.exists():
        path = next((other for other in (REPOSITORY / ".build/release" / name, REPOSITORY / ".build/debug" / name)
                     if other.exists()), path)
    return str(path)


def read_tree(top):
    """What a program sees below `top`, page by page where it gets errors."""
    found, pending = {}, [""]
    while pending:
        path = pending.pop()
        full = os.path.join(top, path)
        entry = {"kind": "directory", "attributes": {}}
        found[path] = entry
        try:
            entry["attributes"] = _attributes(full)
            children = sorted(os.scandir(full), key=lambda child: child.name)
        except OSError as error:
            entry["errno"] = error.errno
            continue
        for child in children:
            name = f"{path}/{child.name}" if path else child.name
            if name == "lost+found":
                continue
            if child.is_dir(follow_symlinks=False):
                pending.append(name)
            else:
                found[name] = _leaf(child)
    return found


def _leaf(child):
    entry = {"kind": "link" if child.is_symlink() else "file", "attributes": {}, "bad": [], "data": b""}
    try:
        if child.is_symlink():
            entry["target"] = os.readlink(child.path)
            return entry
        entry["attributes"] = _attributes(child.path)
        descriptor = os.open(child.path, os.O_RDONLY)
        try:
            entry["data"] = _contents(descriptor, entry["bad"])
        finally:
            os.close(descriptor)
    except OSError as error:
        entry["errno"] = error.errno
    return entry


def _contents(descriptor, bad):
    size, data = os.fstat(descriptor).st_size, bytearray()
    while len(data) < size:
        try:
            piece = os.pread(descriptor, size - len(data), len(data))
            if not piece:
                break
        except OSError:
            count = min(size, len(data) // 4096 * 4096 + 4096) - len(data)
            try:
                piece = os.pread(descriptor, count, len(data))
            except OSError:
                bad.append((len(data), len(data) + count))
                piece = bytes(count)
        data += piece
    return bytes(data)


def _attributes(path):
    return {name: os.getxattr(path, name).hex() for name in os.listxattr(path) if name.startswith("user.")}


class Ext4:
    """The lower file system itself: what it promises is what the others are measured by."""
    page = 4096

    def __init__(self, directory):
        self.directory = Path(directory)
        self.lower, self.mountpoint, self.home = (self.directory / name for name in ("lower", "mount", "home"))
        for path in (self.lower, self.mountpoint, self.home):
            path.mkdir(parents=True, exist_ok=True)

    def init(self):
        pass

    def start(self):
        self.mountpoint = self.lower

    def stop(self):
        pass

    def reader(self, directory):
        return TreeReader(directory)


class TreeReader:
    def __init__(self, directory):
        pass

    def read(self, lower, way):
        return read_tree(lower)

    def close(self):
        pass


class Gocryptfs(Ext4):
    def init(self):
        (self.home / "password").write_text("password\n")
        subprocess.run(["gocryptfs", "-init", "-q", "-scryptn", "10", "-passfile", self.home / "password", self.lower],
                       check=True)

    def start(self):
        subprocess.run(["gocryptfs", "-q", "-passfile", self.home / "password", self.lower, self.mountpoint], check=True)

    def stop(self):
        device.unmount(self.mountpoint)

    def reader(self, directory):
        return GocryptfsReader(directory, self.home)


class GocryptfsReader:
    def __init__(self, directory, home):
        self.home, self.point = home, Path(directory) / "gocryptfs"
        self.point.mkdir(exist_ok=True)

    def read(self, lower, way):
        done = subprocess.run(["gocryptfs", "-q", "-ro", "-passfile", self.home / "password", lower, self.point],
                              capture_output=True, text=True)
        if done.returncode != 0:
            return f"mount: {done.stderr.strip()[-200:]}"
        try:
            return read_tree(self.point)
        finally:
            device.unmount(self.point)

    def close(self):
        pass


class LetheFS(Ext4):
    page = 4064

    def env(self):
        return {**os.environ, "LETHEFS_HOME": str(self.home)}

    def command(self, *words):
        done = subprocess.run([program("lethefs"), *map(str, words)], env=self.env(), check=True, stdout=subprocess.PIPE)
        return done.stdout

    def init(self):
        extra = [f"--integrity={word}" for word in os.environ.get("LETHEFS_TEST_INTEGRITY", "").split(",") if word]
        self.command("init", self.lower, *extra)

    def start(self):
        self.command("mount", self.lower, self.mountpoint)

    def stop(self):
        self.command("unmount", self.mountpoint)

    def reader(self, directory):
        return LetheFSReader(directory, self)


class LetheFSReader:
    """A process with the engine of the mount. `way`: read, settle (a mount that writes), or mount: through FUSE."""

    def __init__(self, directory, backend):
        self.backend, self.point, self.process = backend, Path(directory) / "lethefs", None
        self.point.mkdir(exist_ok=True)

    def _start(self):
        record = next((self.backend.home / "volumes").glob("*.json"))
        uri = json.loads(record.read_text())["roots"][0]
        self.process = subprocess.Popen([program("crash-reader"), uri], env=self.backend.env(), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def read(self, lower, way):
        if way == "mount":
            return self._mounted(lower)
        if self.process is None:
            self._start()
        found = {}
        try:
            self.process.stdin.write(f"{way} {lower}\n".encode())
            self.process.stdin.flush()
            while True:
                line = self.process.stdout.readline()
                if not line:
                    raise BrokenPipeError
                entry = json.loads(line)
                if "end" in entry:
                    return entry["end"] or found
                entry["data"] = self.process.stdout.read(entry["bytes"]) if entry["bytes"] else b""
                entry["attributes"] = {name: value for name, value in entry["attributes"].items()
                                       if name.startswith("user.")}
                found[entry["path"]] = entry
        except BrokenPipeError:
            status = self.process.wait()
            self.process = None
            return f"the reader ended with status {status}"

    def _mounted(self, lower):
        done = subprocess.run([program("lethefs"), "mount", lower, self.point], env=self.backend.env(),
                              capture_output=True, text=True)
        if done.returncode != 0:
            return f"mount: {done.stderr.strip()[-300:]}"
        try:
            return read_tree(self.point)
        finally:
            subprocess.run([program("lethefs"), "unmount", self.point], env=self.backend.env(), check=True,
                           stdout=subprocess.DEVNULL)

    def close(self):
        if self.process:
            self.process.stdin.close()
            self.process.wait(20)


BACKENDS = {"lethefs": LetheFS, "gocryptfs": Gocryptfs, "ext4": Ext4}
