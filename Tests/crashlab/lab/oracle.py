"""What a program did, and what it may find after a crash.

The guarantee that is checked is the one that ext4 gives, which the systems below are measured by:
- after fsync of a file returned, each of its bytes reads as it was, or as an operation begun later left it; its size lies
  between those;
- names, links and extended attributes are as after some operation not older than the last one that an fsync covers: one of
  the file itself, or of the directory. (The journal below keeps their order, so earlier ones are there too.)
"""

import errno
from bisect import bisect_right
from dataclasses import dataclass, field


@dataclass
class Operation:
    kind: str
    path: str
    other: str = ""
    offset: int = 0
    data: bytes = b""
    size: int = 0
    begun: int = -1  # Position in the log.
    acknowledged: int = 1 << 60


@dataclass
class Content:
    """One file's history: events are (operation, kind, offset, data or size)."""
    events: list = field(default_factory=list)
    versions: list = field(default_factory=list)  # (operation, contents after it)
    synced: list = field(default_factory=list)  # operations that are fsyncs of it


@dataclass
class Verdict:
    lower: int = 0  # The lower file system itself could not be mounted: nothing is said about the system above it.
    mount: int = 0  # The volume could not be read at all.
    unreadable: int = 0  # Fsynced bytes that give an error.
    wrong: int = 0  # Fsynced bytes that are neither what they were nor what came later.
    lost: int = 0  # Fsynced bytes behind the end.
    names: int = 0  # Entries that are missing, too many or cannot be listed.
    unsynced: int = 0  # Bytes never fsynced that give an error: no promise, but good to know.
    confined: bool = True  # What is unreadable lies in pages that an operation under way was overwriting.
    checked: int = 0  # Fsynced bytes that were compared.
    notes: list = field(default_factory=list)

    @property
    def weight(self):
        return self.mount + self.unreadable + self.wrong + self.lost + self.names

    @property
    def bad(self):
        return self.weight > 0


class History:
    """The model: made from the operations of a workload, once."""

    def __init__(self, operations):
        self.operations = operations
        self.contents = []
        self.names = {"": ("directory", None, {})}
        self.snapshots = [(-1, self._snapshot())]
        self.covered = []  # (operation that is a sync, the last name operation that it makes durable)
        self.touched = {}  # by file number or directory: last name operation
        for number, operation in enumerate(operations):
            getattr(self, "_" + operation.kind)(number, operation)
        self.begins = [operation.begun for operation in operations]

    # -- building ------------------------------------------------------------------------------------------------

    def _snapshot(self):
        return {path: (kind, number if kind == "file" else None, number if kind == "link" else None, dict(attributes))
                for path, (kind, number, attributes) in self.names.items()}

    def _changed(self, number, *things):
        self.snapshots.append((number, self._snapshot()))
        for thing in things:
            self.touched[thing] = number

    @staticmethod
    def _parent(path):
        return "d:" + path.rpartition("/")[0]

    def _create(self, number, op):
        if op.path in self.names:
            return self._truncate(number, op)
        content = Content()
        content.versions.append((number, b""))
        self.contents.append(content)
        self.names[op.path] = ("file", len(self.contents) - 1, {})
        self._changed(number, len(self.contents) - 1, self._parent(op.path))

    def _file(self, path):
        return self.names[path][1]

    def _event(self, number, path, kind, offset, value, contents):
        content = self.contents[self._file(path)]
        content.events.append((number, kind, offset, value))
        content.versions.append((number, contents))

    def _write(self, number, op):
        old = self.contents[self._file(op.path)].versions[-1][1]
        end = op.offset + len(op.data)
        new = bytearray(old)
        if len(new) < op.offset:
            new += bytes(op.offset - len(new))
        new[op.offset:end] = op.data
        self._event(number, op.path, "write", op.offset, op.data, bytes(new))

    def _truncate(self, number, op):
        old = self.contents[self._file(op.path)].versions[-1][1]
        new = old[:op.size] + bytes(max(0, op.size - len(old)))
        self._event(number, op.path, "truncate", op.size, op.size, new)

    def _fsync(self, number, op):
        file = self._file(op.path)
        self.contents[file].synced.append(number)
        if file in self.touched:
            self.covered.append((number, self.touched[file]))

    def _fsyncdir(self, number, op):
        if "d:" + op.path in self.touched:
            self.covered.append((number, self.touched["d:" + op.path]))

    def _mkdir(self, number, op):
        self.names[op.path] = ("directory", None, {})
        self._changed(number, "d:" + op.path, self._parent(op.path))

    def _symlink(self, number, op):
        self.names[op.path] = ("link", op.other, {})
        self._changed(number, self._parent(op.path))

    def _link(self, number, op):
        self.names[op.other] = self.names[op.path]
        self._changed(number, self._file(op.path), self._parent(op.other))

    def _unlink(self, number, op):
        entry = self.names.pop(op.path)
        things = [entry[1]] if entry[0] == "file" else []
        self._changed(number, *things, self._parent(op.path))

    def _rmdir(self, number, op):
        del self.names[op.path]
        self._changed(number, self._parent(op.path))

    def _rename(self, number, op):
        moved = self.names.pop(op.path)
        self.names[op.other] = moved
        if moved[0] == "directory":
            for path in [path for path in self.names if path.startswith(op.path + "/")]:
                self.names[op.other + path[len(op.path):]] = self.names.pop(path)
            # A directory's own fsync speaks of it under its new name.
            self.touched["d:" + op.other] = number
        things = [moved[1]] if moved[0] == "file" else []
        self._changed(number, *things, self._parent(op.path), self._parent(op.other))

    def _setxattr(self, number, op):
        kind, file, attributes = self.names[op.path]
        attributes[op.other] = op.data.hex()
        self._changed(number, file if kind == "file" else "d:" + op.path)

    def _removexattr(self, number, op):
        kind, file, attributes = self.names[op.path]
        del attributes[op.other]
        self._changed(number, file if kind == "file" else "d:" + op.path)

    # -- judging -------------------------------------------------------------------------------------------------

    def judge(self, cut, found, page):
        """`found`: path → dict of the entry; or a string that says why nothing can be read. `page`: what may fail as one."""
        begun = bisect_right(self.begins, cut) - 1
        is_acknowledged = lambda number: self.operations[number].acknowledged <= cut  # noqa: E731
        if isinstance(found, str):
            return Verdict(mount=1, notes=[found])
        floor = max((covered for number, covered in self.covered if is_acknowledged(number)), default=-1)
        best = None
        for snapshot, named in self._matches(found, floor, begun):
            verdict = Verdict(names=len(named), notes=[f"name {path[-40:]!r}: {told}" for path, told in named[:3]])
            for path, entry in found.items():
                if entry["kind"] == "file" and snapshot.get(path, ("", None))[0] == "file":
                    self._judge_file(path, entry, snapshot[path][1], begun, is_acknowledged, page, verdict)
            if best is None or verdict.weight < best.weight:
                best = verdict
            if not best.bad:
                break
        return best

    def _matches(self, found, floor, begun):
        """The states of names that are found (a name may have been another file's before), or the one that is next to it."""
        seen = {path: (entry["kind"], entry.get("target"), entry["attributes"], entry.get("errno"))
                for path, entry in found.items()}
        best, fewest, equal = None, None, []
        first = max(index for index, (number, _) in enumerate(self.snapshots) if number <= floor)
        for number, snapshot in self.snapshots[first:]:
            if number > begun:
                break
            wanted = {path: (kind, target, attributes, None) for path, (kind, _, target, attributes) in snapshot.items()}
            if wanted == seen:
                equal.append((snapshot, []))
                continue
            differing = [path for path in wanted.keys() | seen.keys() if wanted.get(path) != seen.get(path)]
            if fewest is None or len(differing) < len(fewest):
                best, fewest = snapshot, differing
        if equal:
            return equal
        # A file that cannot be opened is counted by its bytes below, and not as a name.
        named = [path for path in fewest if not (seen.get(path, (0,))[0] == "file" and seen[path][3] is not None
                                                 and path in best)]
        return [(best, [(path, seen.get(path)) for path in named])]

    def _judge_file(self, path, entry, number, begun, is_acknowledged, page, verdict):
        content = self.contents[number]
        base = max((sync for sync in content.synced if is_acknowledged(sync)), default=None)
        if base is None:
            old, later = b"", content.events
        else:
            old = next(contents for at, contents in reversed(content.versions) if at <= base)
            later = [event for event in content.events if event[0] > base]
        later = [event for event in later if event[0] <= begun]
        promised = min([len(old)] + [value for _, kind, _, value in later if kind == "truncate"])
        verdict.checked += promised
        data = entry["data"]
        if entry.get("errno") is not None:
            if promised or (base is not None and entry["errno"] != errno.ENOENT):
                verdict.unreadable += max(promised, 1)
                verdict.confined = False
                verdict.notes.append(f"{path[-40:]}: errno {entry['errno']} {entry.get('damage')}")
            else:
                verdict.unsynced += 1
            return
        bad = entry["bad"]
        if not bad and (data == old or any(
                data == contents for at, contents in content.versions if at <= begun and (base is None or at >= base))):
            return
        if len(data) < promised:
            verdict.lost += promised - len(data)
            verdict.notes.append(f"{path[-40:]}: {len(data)} bytes, {promised} were promised")
        self._judge_errors(path, bad, promised, later, page, verdict)
        self._judge_bytes(path, data, bad, old, promised, later, verdict)

    @staticmethod
    def _judge_errors(path, bad, promised, later, page, verdict):
        for start, end in bad:
            inside = max(0, min(end, promised) - start)
            verdict.unreadable += inside
            verdict.unsynced += end - start - inside
            if inside:
                verdict.notes.append(f"{path[-40:]}: error at {start}–{end}")
                if not any(_overlaps(event, start - page, end + page) for event in later):
                    verdict.confined = False

    @staticmethod
    def _judge_bytes(path, data, bad, old, promised, later, verdict):
        for start in range(0, len(data), 1024):
            piece, was = data[start:start + 1024], old[start:start + 1024]
            if piece == was:
                continue
            for index, byte in enumerate(piece):
                at = start + index
                if index < len(was) and was[index] == byte or any(low <= at < high for low, high in bad):
                    continue
                if at >= promised and byte == 0:
                    continue
                if any(kind == "write" and offset <= at < offset + len(value) and value[at - offset] == byte
                       for _, kind, offset, value in later):
                    continue
                verdict.wrong += 1
                if verdict.wrong == 1:
                    verdict.notes.append(f"{path[-40:]}: wrong byte at {at} of {len(data)}")


def _overlaps(event, start, end):
    _, kind, offset, value = event
    return offset < end and start < (offset + len(value) if kind == "write" else 1 << 60)
