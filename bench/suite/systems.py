"""The file systems that are compared, each over a lower directory of its own on the same lower file system."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from harness.fuse import is_mounted, release_under
from harness.process import Failed, processes_of, run

REPOSITORY = Path(__file__).resolve().parents[2]


def start(argv, log, password=None, env=None):
    """Runs a program that leaves a daemon behind: into a file, since a daemon would keep a pipe open."""
    with open(log, "a+b") as output:
        done = subprocess.run([str(word) for word in argv], stdout=output, stderr=output, timeout=60,
                              input=password, env={**os.environ, **(env or {})})
        if done.returncode != 0:
            output.seek(0)
            raise Failed(f"{argv[0]}: exit status {done.returncode}: {output.read()[-600:].decode(errors='replace')}")


class System:
    """A system under measurement: `lower` is what it stores in, `top` is where programs work."""
    name = ""
    package = None  # Debian's package, where it is one of the peers.
    cannot = {}  # Loads that it cannot do, and why.

    def __init__(self, root: Path):
        self.root = root / self.name
        self.lower, self.top, self.home = self.root / "lower", self.root / "mount", self.root / "home"
        self.pid, self.peak_kib, self.cpu_seconds = None, 0, 0.0

    @classmethod
    def missing(cls):
        """Why it cannot be measured here; empty when it can."""
        return "" if shutil.which(cls.package) else f"{cls.package} is not installed"

    def prepare(self):
        for directory in (self.lower, self.top, self.home):
            directory.mkdir(parents=True)
        self.create()

    def mount(self):
        self.start()
        deadline = time.monotonic() + 20
        while not is_mounted(self.top):
            if time.monotonic() > deadline:
                raise Failed(f"{self.name}: nothing was mounted")
            time.sleep(0.02)
        self.pid = self.find_daemon()

    def find_daemon(self):
        """The process that holds /dev/fuse."""
        for pid in processes_of(f"{self.root}/"):
            try:
                links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            except OSError:
                continue
            if "/dev/fuse" in links and not self.is_helper(pid):
                return pid
        return None

    def is_helper(self, pid):
        """Whether it holds /dev/fuse beside the daemon."""
        return False

    def remount(self):
        """A mount that knows nothing; the lower tree stays in memory."""
        self.unmount()
        self.mount()

    def note_usage(self):
        """Adds the daemon's processor time and peak memory to what this system has used."""
        if self.pid is None:
            return
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return
        self.cpu_seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        self.peak_kib = max(self.peak_kib, _field(status, "VmHWM"))

    def cpu_now(self):
        if self.pid is None:
            return 0.0
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_kib(self):
        return _field(Path(f"/proc/{self.pid}/status").read_text(), "VmRSS") if self.pid else 0

    def unmount(self):
        self.note_usage()
        pid, self.pid = self.pid, None
        self.stop()
        deadline = time.monotonic() + 30
        while is_mounted(self.top) or (pid and os.path.exists(f"/proc/{pid}")):
            if time.monotonic() > deadline:
                raise Failed(f"{self.name}: does not unmount")
            time.sleep(0.02)

    def remove(self):
        """Whatever happened: nothing mounted, no directory left."""
        release_under(self.root)
        shutil.rmtree(self.root, ignore_errors=True)

    def stop(self):
        for _ in range(50):
            if run(["fusermount3", "-u", self.top], check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise Failed(f"{self.name}: still busy")


def _field(status, name):
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith(name + ":")), 0)


class Ext4(System):
    """The lower file system itself."""
    name = "ext4"

    @classmethod
    def missing(cls):
        return ""

    def __init__(self, root):
        super().__init__(root)
        self.top = self.lower

    def prepare(self):
        self.lower.mkdir(parents=True)
        self.home.mkdir()

    def mount(self):
        pass

    def unmount(self):
        pass


class LetheFS(System):
    name = "lethefs"
    options = "allow_other,transport=dev-fuse"
    integrity = ()
    environment = {}

    @classmethod
    def program(cls):
        return os.environ.get("LETHEFS", str(REPOSITORY / ".build/release/lethefs"))

    @classmethod
    def missing(cls):
        return "" if os.access(cls.program(), os.X_OK) else f"{cls.program()} is not built"

    def command(self, *words, limit=60):
        return run([self.program(), *words], env={"LETHEFS_HOME": str(self.home), **self.environment}, limit=limit)

    def is_helper(self, pid):
        return b"guardian" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1]

    def create(self):
        self.command("init", self.lower, *(f"--integrity={word}" for word in self.integrity))

    def start(self):
        self.command("mount", self.lower, self.top, "-o", self.options)

    def stop(self):
        self.command("unmount", self.top)


class LetheFSRing(LetheFS):
    """The same over io_uring, which is switched on for the moment of mounting: the switch is the whole host's."""
    name = "lethefs-io_uring"
    options = "allow_other,transport=io_uring"
    switch = Path("/sys/module/fuse/parameters/enable_uring")

    @classmethod
    def missing(cls):
        return super().missing() if cls.switch.exists() else "the kernel has no FUSE over io_uring"

    def start(self):
        before = self.switch.read_text()
        self.switch.write_text("Y")
        try:
            super().start()
        finally:
            self.switch.write_text(before)


class LetheFSTree(LetheFS):
    name = "lethefs-tree"
    integrity = ("tree",)


class LetheFSNames(LetheFS):
    name = "lethefs-names"
    integrity = ("names",)


class LetheFSBoth(LetheFS):
    name = "lethefs-both"
    integrity = ("tree", "names")


class PassThrough(LetheFS):
    """The same server without cryptography: what encryption costs, and what it cannot be faster than."""
    name = "pass-through"

    @classmethod
    def program(cls):
        return str(REPOSITORY / ".build-passthrough/release/lethefs-without-encryption")


class PassThroughRing(PassThrough, LetheFSRing):
    name = "pass-through-io_uring"


class Gocryptfs(System):
    name = package = "gocryptfs"

    def create(self):
        (self.home / "password").write_text("password\n")
        run(["gocryptfs", "-init", "-q", "-scryptn", "10", "-passfile", self.home / "password", self.lower])

    def start(self):
        start(["gocryptfs", "-q", "-allow_other", "-passfile", self.home / "password", self.lower, self.top],
              self.home / "log")


class Securefs(System):
    """securefs's “lite” format, its fastest."""
    name = package = "securefs"
    cannot = {"pgbench": "all files belong to who mounted, and initdb refuses"}

    def create(self):
        run(["securefs", "create", "--format", "2", "--rounds", "1", "--pass", "password", self.lower])

    def start(self):
        start(["securefs", "mount", "-b", "-o", "allow_other", "--pass", "password", "--log", self.home / "securefs.log",
               self.lower, self.top], self.home / "log")


class EncFS(System):
    name = package = "encfs"

    def create(self):
        self.start()
        self.stop()

    def start(self):
        start(["encfs", "--standard", "--public", "--stdinpass", self.lower, self.top], self.home / "log", b"password\n")


class CryFS(System):
    name = package = "cryfs"

    def create(self):
        pass

    def start(self):
        start(["cryfs", self.lower, self.top, "-o", "allow_other"], self.home / "log", b"password\n",
              {"CRYFS_FRONTEND": "noninteractive", "CRYFS_NO_UPDATE_CHECK": "true",
               "CRYFS_LOCAL_STATE_DIR": str(self.home)})


SYSTEMS = [Ext4, PassThrough, PassThroughRing, LetheFS, LetheFSRing, LetheFSTree, LetheFSNames, LetheFSBoth,
           Gocryptfs, Securefs, EncFS, CryFS]
PEERS = ("gocryptfs", "securefs")
#: LetheFS, and itself without cryptography over the same transport.
LIMITS = {"lethefs": "pass-through", "lethefs-io_uring": "pass-through-io_uring"}
