"""What programs do to files, as far as a crash can tell. Each workload takes a `Work` and a seeded generator."""

import os
import threading
import time

from .oracle import Operation


class Work:
    """Does operations on a directory, and notes each with marks around it in the log of the disk.

    With `hold`, files stay open from their first write on, as a database has them; otherwise each operation opens and closes.
    """

    def __init__(self, top, recorder, hold):
        self.top, self.recorder, self.hold, self.operations, self.held = str(top), recorder, hold, [], {}
        self.between = lambda: None

    def _do(self, operation, function):
        self.between()
        number = len(self.operations)
        self.operations.append(operation)
        self.recorder.mark(f"b{number}")
        result = function(os.path.join(self.top, operation.path))
        self.recorder.mark(f"a{number}")
        return result

    def _on(self, path, call, *arguments, flags=os.O_RDWR):
        if not self.hold or flags != os.O_RDWR:
            return _on(path, call, *arguments, flags=flags)
        if path not in self.held:
            self.held[path] = os.open(path, flags)
        return call(self.held[path], *arguments)

    def let_go(self, path=None):
        """Closes what is held; with `path`, whatever a rename or unlink makes to be another file."""
        for full in [full for full in self.held if path is None or (full + "/").startswith(os.path.join(self.top, path) + "/")]:
            os.close(self.held.pop(full))

    def create(self, path):
        """O_CREAT|O_TRUNC."""
        self._do(Operation("create", path), lambda full: os.close(
            os.open(full, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)))

    def write(self, path, offset, data):
        self._do(Operation("write", path, offset=offset, data=data), lambda full: self._on(full, os.pwrite, data, offset))

    def truncate(self, path, size):
        self._do(Operation("truncate", path, size=size), lambda full: os.truncate(full, size))

    def fsync(self, path):
        self._do(Operation("fsync", path), lambda full: self._on(full, os.fsync))

    def fdatasync(self, path):
        self._do(Operation("fsync", path), lambda full: self._on(full, os.fdatasync))

    def fsyncdir(self, path):
        self._do(Operation("fsyncdir", path), lambda full: self._on(full, os.fsync, flags=os.O_RDONLY))

    def mkdir(self, path):
        self._do(Operation("mkdir", path), lambda full: os.mkdir(full, 0o755))

    def rmdir(self, path):
        self._do(Operation("rmdir", path), os.rmdir)

    def unlink(self, path):
        self.let_go(path)
        self._do(Operation("unlink", path), os.unlink)

    def rename(self, path, other):
        self.let_go(path)
        self.let_go(other)
        self._do(Operation("rename", path, other), lambda full: os.rename(full, os.path.join(self.top, other)))

    def link(self, path, other):
        self._do(Operation("link", path, other), lambda full: os.link(full, os.path.join(self.top, other)))

    def symlink(self, path, target):
        self._do(Operation("symlink", path, target), lambda full: os.symlink(target, full))

    def setxattr(self, path, name, value):
        self._do(Operation("setxattr", path, name, data=value), lambda full: os.setxattr(full, name, value))

    def removexattr(self, path, name):
        self._do(Operation("removexattr", path, name), lambda full: os.removexattr(full, name))

    def new(self, path, data, sync=True):
        self.create(path)
        if data:
            self.write(path, 0, data)
        if sync:
            self.fsync(path)


def _on(path, call, *arguments, flags=os.O_RDWR):
    descriptor = os.open(path, flags)
    try:
        return call(descriptor, *arguments)
    finally:
        os.close(descriptor)


class Shaker(threading.Thread):
    """Writeback at odd moments, as a busy host has it: data without journal, journal without later data."""

    def __init__(self, lower, chance):
        super().__init__(daemon=True)
        self.lower, self.chance, self.over = str(lower), chance, threading.Event()

    def run(self):
        import ctypes
        libc = ctypes.CDLL(None)
        while not self.over.wait(self.chance.uniform(0.002, 0.03)):
            try:
                if self.chance.random() < 0.15:
                    _on(self.lower, lambda descriptor: libc.syncfs(descriptor), flags=os.O_RDONLY)
                    continue
                files = [entry.path for entry in os.scandir(self.lower) if entry.is_file(follow_symlinks=False)]
                if files:
                    _on(self.chance.choice(files), lambda descriptor: libc.sync_file_range(
                        descriptor, ctypes.c_long(0), ctypes.c_long(0), 7), flags=os.O_RDONLY)
            except OSError:
                pass  # It was renamed or removed meanwhile.

    def end(self):
        self.over.set()
        self.join()


def sqlite_rollback(w, chance):
    w.new("db", chance.randbytes(64 * 4096))
    for turn in range(14):
        pages = chance.sample(range(64), 5)
        w.create("db-journal")
        w.write("db-journal", 0, chance.randbytes(512 + len(pages) * 4104))
        w.fsync("db-journal")
        w.fsyncdir("")
        for page in pages:
            w.write("db", page * 4096, chance.randbytes(4096))
        w.fsync("db")
        w.unlink("db-journal")
        if turn % 4 == 3:
            w.fsyncdir("")


def sqlite_wal(w, chance):
    w.new("db", chance.randbytes(40 * 4096))
    w.new("db-wal", chance.randbytes(32))
    at = 32
    for turn in range(30):
        for _ in range(chance.randint(1, 4)):
            w.write("db-wal", at, chance.randbytes(4120))
            at += 4120
        w.fdatasync("db-wal")
        if turn % 8 == 7:
            for page in chance.sample(range(40), 6):
                w.write("db", page * 4096, chance.randbytes(4096))
            w.fsync("db")
            at = 32


def postgres(w, chance):
    w.mkdir("pg_wal")
    w.mkdir("base")
    w.fsyncdir("")
    for relation in range(3):
        w.new(f"base/{relation}", chance.randbytes(20 * 8192))
    for segment in range(2):
        w.new(f"pg_wal/temp{segment}", bytes(16 * 8192))
        w.rename(f"pg_wal/temp{segment}", f"pg_wal/{segment:08}")
        w.fsyncdir("pg_wal")
        for page in range(16):
            w.write(f"pg_wal/{segment:08}", page * 8192, chance.randbytes(8192))
            w.fdatasync(f"pg_wal/{segment:08}")
            if chance.random() < 0.4:
                w.write(f"base/{chance.randrange(3)}", chance.randrange(22) * 8192, chance.randbytes(8192))
        for relation in range(3):
            w.fsync(f"base/{relation}")
    w.rename("pg_wal/00000000", "pg_wal/00000002")
    w.fsync("pg_wal/00000002")


def editors(w, chance):
    w.new("text", chance.randbytes(9000))
    w.fsyncdir("")
    for turn in range(18):
        data = chance.randbytes(chance.choice([10, 3000, 3552, 8000, 30000]))
        if turn % 3:
            w.new("text.tmp", data)
            w.rename("text.tmp", "text")
            w.fsyncdir("")
        else:
            w.rename("text", "text~")
            w.new("text", data)
            w.fsyncdir("")
            w.unlink("text~")


def packages(w, chance):
    for package in range(6):
        top = f"package{package}"
        w.mkdir(top)
        w.mkdir(f"{top}/lib")
        for number in range(6):
            path = f"{top}/lib/file{number}"
            w.new(path + ".dpkg-new", chance.randbytes(chance.choice([0, 1, 200, 3600, 12000])), sync=False)
        for number in range(6):
            w.fsync(f"{top}/lib/file{number}.dpkg-new")
            w.rename(f"{top}/lib/file{number}.dpkg-new", f"{top}/lib/file{number}")
        w.symlink(f"{top}/lib/current", "file1")
        w.fsyncdir(f"{top}/lib")
        w.new("status-new", chance.randbytes(2000 + 900 * package))
        w.rename("status-new", "status")
        w.fsyncdir("")


def overwrites(w, chance):
    sizes = {"a": 150_000, "b": 20_000, "c": 3552, "d": 40}
    for name, size in sizes.items():
        w.new(name, chance.randbytes(size))
    for _ in range(45):
        name = chance.choice(list(sizes))
        count = min(sizes[name], chance.choice([1, 100, 4064, 4096, 20_000, 66_000]))
        w.write(name, chance.randrange(sizes[name] - count + 1), chance.randbytes(count))
        if chance.random() < 0.6:
            w.fsync(name)


def appends(w, chance):
    ends = {"log": 0, "small": 0, "big": 0}
    for name in ends:
        w.create(name)
    for _ in range(70):
        name = chance.choice(list(ends))
        count = {"log": chance.randrange(1, 500), "small": chance.randrange(1, 20),
                 "big": chance.choice([4064, 10_000, 40_000])}[name]
        w.write(name, ends[name], chance.randbytes(count))
        ends[name] += count
        if chance.random() < 0.6:
            w.fsync(name)


def truncates(w, chance):
    sizes = {"a": 60_000, "b": 9_000, "c": 3_000}
    for name, size in sizes.items():
        w.new(name, chance.randbytes(size))
    for _ in range(45):
        name = chance.choice(list(sizes))
        size = chance.choice([0, 1, 3551, 3552, 3553, 7616, sizes[name] // 2, sizes[name] + 5000, sizes[name] + 1])
        w.truncate(name, size)
        sizes[name] = size
        if chance.random() < 0.5:
            w.fsync(name)
        if chance.random() < 0.5:
            count = chance.choice([10, 4000, 9000])
            at = max(0, size - chance.randrange(0, 3000))
            w.write(name, at, chance.randbytes(count))
            sizes[name] = max(size, at + count)
            w.fsync(name)


def sparse(w, chance):
    for name in "abc":
        w.create(name)
    for _ in range(40):
        name = chance.choice("abc")
        w.write(name, chance.choice([0, 100, 3552, 7616, 20_000, 50_000, 90_000]) + chance.randrange(3),
                chance.randbytes(chance.choice([1, 64, 4064, 6000])))
        if chance.random() < 0.6:
            w.fsync(name)


def trees(w, chance):
    made = []
    for turn in range(14):
        top = f"t{turn}"
        w.mkdir(top)
        w.mkdir(f"{top}/inner")
        w.mkdir(f"{top}/inner/deep")
        w.new(f"{top}/inner/deep/file", chance.randbytes(500))
        if turn % 2:
            w.rename(top, f"moved{turn}")
            w.fsyncdir("")
            top = f"moved{turn}"
        if made and turn % 3 == 0:
            other = made.pop()
            w.rename(f"{other}/inner/deep", f"{top}/taken")
            w.fsync(f"{top}/taken/file")
            w.rmdir(f"{other}/inner")
            w.rmdir(other)
            w.fsyncdir("")
        made.append(top)
        if turn % 3 == 0:
            made.remove(top)


def long_names(w, chance):
    name = lambda number: (f"{number:03}" + "n" * 252)[:chance.choice([177, 200, 254, 255])]  # noqa: E731
    names = []
    for number in range(22):
        path = name(number)
        w.new(path, chance.randbytes(300))
        if number % 4 == 1:
            new = name(number + 500)
            w.rename(path, new)
            w.fsyncdir("")
            path = new
        if number % 4 == 2 and names:
            w.unlink(names.pop())
            w.fsyncdir("")
        if number % 5 == 3 and names:
            w.rename(path, names[-1])
            w.fsync(names[-1])
        else:
            names.append(path)
        if number % 6 == 5:
            w.mkdir("d" + name(number)[1:])
            w.fsyncdir("")


def hard_links(w, chance):
    w.mkdir("other")
    for number in range(14):
        first, second = f"f{number}", f"other/l{number}"
        w.new(first, chance.randbytes(2000))
        w.link(first, second)
        w.write(second, 500, chance.randbytes(1000))
        w.fsync(second)
        if number % 2:
            w.unlink(first)
            w.fsyncdir("")
        if number % 3 == 0:
            w.symlink(f"s{number}", "target" * chance.choice([1, 100]))
            w.fsyncdir("")
        if number % 5 == 4:
            w.unlink(second)
            w.new(second, b"again")


def attributes(w, chance):
    w.mkdir("dir")
    for name in ("a", "b", "dir/c"):
        w.new(name, chance.randbytes(100))
    there = {}
    for turn in range(40):
        path = chance.choice(["a", "b", "dir/c", "dir"])
        names = there.setdefault(path, set())
        if names and chance.random() < 0.25:
            name = names.pop()
            w.removexattr(path, name)
        else:
            name = f"user.{chance.randrange(4)}"
            names.add(name)
            w.setxattr(path, name, chance.randbytes(chance.choice([1, 30, 300])))
        if chance.random() < 0.6:
            w.fsyncdir(path) if path == "dir" else w.fsync(path)


WORKLOADS = {function.__name__: function for function in (
    sqlite_rollback, sqlite_wal, postgres, editors, packages, overwrites, appends, truncates, sparse, trees, long_names,
    hard_links, attributes)}
