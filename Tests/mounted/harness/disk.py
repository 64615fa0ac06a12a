"""A lower file system of the test's own, on a loop device."""

import fcntl
import os
import struct

from .process import Failed, run

# EXT4_IOC_SHUTDOWN, and the flag that leaves the journal unflushed: what a power cut does.
_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2


class SmallDisk:
    """An ext4 of `mebibytes` on a loop device, mounted over the volume's lower directory."""

    def __init__(self, volume, mebibytes=24):
        self.volume, self.image = volume, volume.root / "image"
        with open(self.image, "wb") as file:
            file.truncate(mebibytes << 20)
        run(["mkfs.ext4", "-q", "-F", "-m", "0", "-I", "256", "-b", "4096", self.image])
        run(["mount", "-o", "loop", self.image, volume.lower])
        os.rmdir(volume.lower / "lost+found")

    def remove(self):
        said = run(["umount", self.volume.lower], check=False)
        if said.returncode != 0:
            users = run(["fuser", "-vm", self.volume.lower], check=False)
            raise Failed(f"{said.stderr.strip()}; who uses it: {users.stderr} {users.stdout}")

    def mount(self):
        run(["mount", "-o", "loop", self.image, self.volume.lower])

    def cut_power(self):
        """Nothing more reaches the device; what was not flushed is gone."""
        fd = os.open(self.volume.lower, os.O_RDONLY)
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        os.close(fd)
