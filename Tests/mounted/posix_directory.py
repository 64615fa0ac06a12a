"""Directories: listing, positions, removal, great depth."""

import errno
import os
import shutil

from harness import equal, full_run, on_mount, raises
from harness.syscalls import Directory

MANY = 20_000 if full_run() else 4_000


def fill(d, count):
    for number in range(count):
        os.close(os.open(d / f"entry {number}", os.O_CREAT | os.O_WRONLY))
    return {f"entry {number}" for number in range(count)}


@on_mount(limit=240)
def many_entries_complete_and_once(d):
    want = fill(d, MANY)
    for turn in range(2):
        names = os.listdir(d)
        equal(len(names), MANY, "entries")
        equal(set(names), want)
    for number in range(0, MANY, 2):
        os.unlink(d / f"entry {number}")
    want = {f"entry {number}" for number in range(1, MANY, 2)}
    equal(sorted(os.listdir(d)), sorted(want), "after half are gone")
    for name in want:
        os.unlink(d / name)
    equal(os.listdir(d), [])


@on_mount(limit=120)
def listing_while_deleting(d):
    """What rm -r does: entries that are not deleted meanwhile are all seen, none twice."""
    want = fill(d, MANY)
    seen = []
    with Directory(d) as stream:
        while (name := stream.read()) is not None:
            if name in (b".", b".."):
                continue
            seen.append(name.decode())
            os.unlink(d / seen[-1])
    equal(len(seen), len(set(seen)), "names seen once")
    equal(set(seen), want)
    os.rmdir(d)
    os.mkdir(d)


@on_mount(limit=60)
def listing_while_creating(d):
    count = MANY // 4
    want = fill(d, count)
    seen = []
    with os.scandir(d) as entries:
        for number, entry in enumerate(entries):
            seen.append(entry.name)
            if number < count // 2 and number % 10 == 0:
                (d / f"new {number}").touch()
    assert want <= set(seen), f"{len(want - set(seen))} entries were not seen"
    equal(len(seen), len(set(seen)), "names seen once")


@on_mount()
def positions(d):
    fill(d, 1_000)
    with Directory(d) as stream:
        order, positions = [], []
        while True:
            positions.append(stream.tell())
            name = stream.read()
            if name is None:
                break
            order.append(name)
        for index in (0, 1, 2, 500, 999, 1_001, 3, 700):
            stream.seek(positions[index])
            equal(stream.read(), order[index], f"the entry at position {index}")
        stream.seek(positions[990])
        rest = []
        while (name := stream.read()) is not None:
            rest.append(name)
        equal(rest, order[990:])
        stream.rewind()
        equal(stream.read(), order[0])
    equal(len(order), 1_002)
    equal(set(order) - {b".", b".."}, {f"entry {number}".encode() for number in range(1_000)})


@on_mount()
def dot_entries_and_types(d):
    (d / "dir").mkdir()
    (d / "file").touch()
    os.symlink("x", d / "link")
    os.mkfifo(d / "fifo")
    with Directory(d) as stream:
        names = set()
        while (name := stream.read()) is not None:
            names.add(name)
    equal(names, {b".", b"..", b"dir", b"file", b"link", b"fifo"})
    with os.scandir(d) as entries:
        for entry in entries:
            equal(entry.is_dir(follow_symlinks=False), entry.name == "dir")
            equal(entry.is_symlink(), entry.name == "link")
            equal(entry.inode(), os.lstat(d / entry.name).st_ino, "d_ino")


@on_mount()
def removal(d):
    (d / "dir/sub").mkdir(parents=True)
    (d / "file").touch()
    raises(errno.ENOTEMPTY, os.rmdir, d / "dir")
    raises(errno.ENOTDIR, os.rmdir, d / "file")
    raises(errno.EISDIR, os.unlink, d / "dir")
    raises(errno.ENOENT, os.rmdir, d / "none")
    raises(errno.EINVAL, os.rmdir, str(d / "dir") + "/.")
    raises(errno.EEXIST, os.mkdir, d / "dir")
    os.rmdir(d / "dir/sub")
    os.rmdir(d / "dir")
    equal(os.listdir(d), ["file"])


@on_mount()
def readers_of_one_directory(d):
    """Each goes on where it was; one that begins later sees what was made since the others did."""
    want = fill(d, 3000)
    with Directory(d) as first, Directory(d) as second, Directory(d) as late:
        seen = {first: [first.read() for _ in range(1000)], second: [second.read() for _ in range(1000)], late: []}
        (d / "new").touch()
        reading = list(seen)
        while reading:
            for reader in list(reading):
                name = reader.read()
                if name is None:
                    reading.remove(reader)
                else:
                    seen[reader].append(name)
        for reader, names in seen.items():
            names = {name.decode() for name in names}
            equal(names - {"new"}, want | {".", ".."})
        assert b"new" in seen[late], "what was there when the late one began"
    for names in seen.values():
        equal(len(names), len(set(names)), "names seen once")


@on_mount()
def removed_while_open(d):
    (d / "dir").mkdir()
    fd = os.open(d / "dir", os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir(d / "dir")
    equal(os.listdir(fd), [])
    raises(errno.ENOENT, os.open, "new", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.close(fd)
    (d / "dir").mkdir()
    equal(os.listdir(d / "dir"), [])


@on_mount()
def removed_while_somebody_is_in_it(d):
    """Of many: as often as names may be remembered, and more. It stays itself, also when its name is given anew."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for number in range(300):
                (d / "dir").mkdir()
                os.chdir(d / "dir")
                os.rmdir(d / "dir")
                if number % 100 == 0:
                    (d / "dir").mkdir(0o755)
                    os.chmod(".", 0o700)
                    equal(os.stat(".").st_nlink, 0, "links of the removed one")
                    equal(os.stat(d / "dir").st_mode & 0o777, 0o755, "mode of the new one")
                    # Nothing is in it, and nothing can be made in it.
                    equal(os.listdir("."), [])
                    raises(errno.ENOENT, os.mkdir, "new")
                    os.chdir(d)
                    os.rmdir(d / "dir")
            status = 0
        except BaseException as error:
            print(f"in the removed directory: {error!r}", flush=True)
        finally:
            os._exit(status)
    equal(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, "who was in it")


@on_mount(limit=60)
def nothing_internal_is_visible(d):
    top = d.parent
    assert ".lethefs" not in os.listdir(top), os.listdir(top)
    raises(errno.ENOENT, os.lstat, top / "lethefs.dir")
    for name in (".lethefs", "lethefs.dir", "lethefs.long.x"):
        (d / name).write_bytes(b"the user's own")
        equal((d / name).read_bytes(), b"the user's own", name)
    equal(sorted(os.listdir(d)), [".lethefs", "lethefs.dir", "lethefs.long.x"])


@on_mount(limit=60)
def deeper_than_path_max(d):
    """By chdir, 60 levels of 200-byte names: three times PATH_MAX; then removal from the top by the usual tools."""
    names = [f"{level:03d}" + "n" * 197 for level in range(60)]
    os.chdir(d)
    for name in names:
        os.mkdir(name)
        os.chdir(name)
    fd = os.open("bottom", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"deep")
    os.close(fd)
    os.rename("bottom", "renamed")
    equal(os.listdir("."), ["renamed"])
    for _ in names:
        os.chdir("..")
    equal(os.getcwd(), str(d))
    for name in names:
        os.chdir(name)
    with open("renamed", "rb") as file:
        equal(file.read(), b"deep")
    os.chdir(d)
    shutil.rmtree(d / names[0])
    equal(os.listdir(d), [])


@on_mount()
def path_of_path_max(d):
    path = str(d)
    while len(path) < 4095 - 101:
        path += "/" + "p" * 99
        os.mkdir(path)
    path += "/" + "f" * (4095 - len(path) - 1)
    equal(len(path), 4095)
    with open(path, "wb") as file:
        file.write(b"x")
    equal(os.stat(path).st_size, 1)
    raises(errno.ENAMETOOLONG, os.stat, path + "f")


@on_mount(limit=60)
def wide_and_deep_tree(d):
    made = set()
    for a in range(12):
        for b in range(12):
            (d / f"{a}/{b}").mkdir(parents=True)
            for c in range(3):
                (d / f"{a}/{b}/{c}").write_bytes(f"{a}.{b}.{c}".encode())
                made.add(f"{a}/{b}/{c}")
    found = {os.path.relpath(os.path.join(top, name), d) for top, _, names in os.walk(d) for name in names}
    equal(found, made)
    for path in made:
        equal((d / path).read_bytes(), path.replace("/", ".").encode())
    shutil.rmtree(d / "3")
    equal(len(os.listdir(d)), 11)
