"""Loop devices, mounts and the recorder, by system calls: thousands of states leave no time for programs."""

import ctypes
import errno
import fcntl
import os
import struct
import subprocess
import time
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
MS_RDONLY, MNT_DETACH = 1, 2
_GET_FREE, _CONFIGURE, _CLEAR = 0x4C82, 0x4C0A, 0x4C01
_AUTOCLEAR = 4
_BUSY = (errno.EBUSY, errno.ENXIO)


def mount(source, target, kind, flags=0, data=""):
    if _libc.mount(os.fsencode(str(source)), os.fsencode(str(target)), kind.encode(), flags, data.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def unmount(target, flags=0):
    for _ in range(200):
        if _libc.umount2(os.fsencode(str(target)), flags) == 0:
            return
        number = ctypes.get_errno()
        if number != errno.EBUSY:
            raise OSError(number, os.strerror(number), str(target))
        time.sleep(0.02)
    raise OSError(number, os.strerror(number), str(target))


def attach(path):
    """A loop device over a file, as (descriptor, device). It detaches itself when the last user is gone."""
    backing = os.open(path, os.O_RDWR)
    try:
        with open("/dev/loop-control", "rb") as control:
            for _ in range(1000):
                device = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
                try:
                    descriptor = os.open(device, os.O_RDWR)
                except FileNotFoundError:
                    os.mknod(device, 0o600 | 0o060000, os.makedev(7, int(device[9:])))
                    continue
                info = struct.pack("<QQQQQIIII64s64s32sQQ", 0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR,
                                   os.fsencode(str(path))[-63:], b"", b"", 0, 0)
                try:
                    fcntl.ioctl(descriptor, _CONFIGURE, struct.pack("<II", backing, 0) + info + bytes(64))
                    return descriptor, device
                except OSError as error:
                    os.close(descriptor)
                    if error.errno not in _BUSY:
                        raise
                    time.sleep(0.002)
    finally:
        os.close(backing)
    raise OSError(errno.EBUSY, "no free loop device")


def mount_image(image, target, flags=0, data=""):
    descriptor, device = attach(image)
    try:
        mount(device, target, "ext4", flags, data)
    finally:
        os.close(descriptor)


def compile_recorder(directory):
    """Builds recorder.c against libfuse3; returns the program."""
    program = Path(directory) / "recorder"
    if not program.exists():
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], check=True, capture_output=True,
                               text=True).stdout.split()
        source = Path(__file__).resolve().parents[1] / "recorder.c"
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-o", program, source, *flags], check=True)
    return program


class Recorder:
    """The lower disk of one workload: an ext4 on a loop device whose backing file records each write and flush."""

    def __init__(self, directory, mebibytes):
        self.directory = Path(directory)
        self.disk, self.log = self.directory / "disk", self.directory / "log"
        self.base, self.point = self.directory / "base", self.directory / "recorded"
        self.point.mkdir()
        with open(self.disk, "wb") as file:
            file.truncate(mebibytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-J", "size=4", "-E",
                        "nodiscard,lazy_itable_init=0,lazy_journal_init=0", self.disk], check=True)
        self.base.write_bytes(self.disk.read_bytes())
        self.process = subprocess.Popen([compile_recorder(self.directory.parent), self.disk, self.log, self.point])
        deadline = time.monotonic() + 20
        while not (self.point / "disk").exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the recorder does not answer")
            time.sleep(0.02)
        self.marks = os.open(self.point / "mark", os.O_WRONLY)

    def mount(self, target):
        mount_image(self.point / "disk", target, data="commit=1")

    def mark(self, text):
        os.pwrite(self.marks, text.encode(), 0)

    def close(self):
        os.close(self.marks)
        for _ in range(100):
            try:
                unmount(self.point)
                break
            except OSError:
                time.sleep(0.05)  # The loop device lets go a moment after the unmount.
        self.process.wait(20)


class Log:
    """What the recorder wrote: `records[i]` is (kind, offset, bytes); `marks` are (position, text)."""

    WRITE, FLUSH, MARK = 1, 2, 3

    def __init__(self, path):
        self.data = memoryview(Path(path).read_bytes())
        self.records, self.marks = [], []
        at = 0
        while at < len(self.data):
            kind, length, offset = struct.unpack_from("<IIQ", self.data, at)
            body = self.data[at + 16:at + 16 + length]
            at += 16 + length
            if kind == self.MARK:
                self.marks.append((len(self.records), bytes(body).decode()))
            else:
                self.records.append((kind, offset, body))
