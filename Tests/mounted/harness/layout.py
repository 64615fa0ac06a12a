"""What the tests know of the lower format, to aim at: FORMAT.md rules. And finding the lower form of a file."""

import os
from pathlib import Path

PAGE, HEADER, LEADER = 4096, 512, 32
FIRST_PAYLOAD, PAYLOAD = PAGE - HEADER - LEADER, PAGE - LEADER
#: Offsets of the format version (2 bytes) and the feature flags (4 bytes).
FILE_VERSION, FILE_FEATURES = 8, 12
VOLUME_VERSION, VOLUME_FEATURES = 8, 10


def page_count(size: int) -> int:
    if size == 0:
        return 0
    return 1 if size <= FIRST_PAYLOAD else 1 + -(-(size - FIRST_PAYLOAD) // PAYLOAD)


def leaders(size: int) -> list[range]:
    """Where the leaders of a file of `size` plaintext bytes lie in its lower file."""
    starts = [HEADER if page == 0 else page * PAGE for page in range(page_count(size))]
    return [range(start, start + LEADER) for start in starts]


def used_end(size: int) -> int:
    """Lower offset behind the last byte that carries plaintext."""
    pages = page_count(size)
    if pages == 0:
        return HEADER
    if pages == 1:
        return HEADER + LEADER + size
    return (pages - 1) * PAGE + LEADER + size - FIRST_PAYLOAD - (pages - 2) * PAYLOAD


def lower_length(size: int) -> int:
    """Whole pages, then as many bytes of hole as the last page holds of plaintext."""
    pages = page_count(size)
    if pages == 0:
        return HEADER
    return pages * PAGE + (size if pages == 1 else size - FIRST_PAYLOAD - (pages - 2) * PAYLOAD)


class Marks:
    """Gives entries of the mount mtimes of their own, by which their lower forms are found."""

    def __init__(self):
        self.next = 1_000_000_000_000_000_001
        self.marked = {}

    def mark(self, path):
        """Call it when nothing more changes the entry."""
        os.utime(path, ns=(self.next, self.next), follow_symlinks=False)
        self.marked[self.next] = path
        self.next += 1_000_003

    def find(self, lower: Path) -> dict:
        """Path on the mount → path on the lower storage. All that were marked must be found."""
        found = {}
        for directory, names, files in os.walk(lower):
            for name in names + files:
                path = Path(directory, name)
                mounted = self.marked.get(os.lstat(path).st_mtime_ns)
                if mounted is not None:
                    found[mounted] = path
        missing = set(self.marked.values()) - set(found)
        assert not missing, f"{len(missing)} of {len(self.marked)} entries have no lower entry of the same mtime"
        return found


def flip(path, offset, bits=1):
    """Changes one byte of a file."""
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([(byte[0] if byte else 0) ^ bits]))
