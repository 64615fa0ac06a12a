"""PostgreSQL on the mount: load, run, crash of the server, recovery, page checksums."""

import glob
import os
import pwd

from harness import equal, full_run, on_volume, run


def binaries():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    assert found, "PostgreSQL is not installed"
    return found[-1]


class Server:
    """A cluster in `data`, run as user postgres, reached over a socket outside the mount."""

    def __init__(self, data, sockets):
        self.bin, self.data, self.sockets = binaries(), data, sockets
        owner = pwd.getpwnam("postgres")
        for directory in (data, sockets):
            directory.mkdir()
            os.chown(directory, owner.pw_uid, owner.pw_gid)
        os.chmod(data, 0o700)

    def program(self, name, *words, limit=120):
        return run([f"{self.bin}/{name}", *words], user="postgres", cwd="/", limit=limit,
                   env={"PGHOST": str(self.sockets), "PGDATABASE": "postgres", "LC_ALL": "C.UTF-8"}).stdout

    def init(self):
        self.program("initdb", "--data-checksums", "-D", self.data, "-A", "trust", "-E", "UTF8")

    def start(self):
        options = f"-c listen_addresses='' -c unix_socket_directories={self.sockets} -c shared_buffers=16MB"
        self.program("pg_ctl", "-D", self.data, "-w", "-t", "90", "-l", self.sockets / "log", "-o", options, "start")

    def stop(self, mode):
        self.program("pg_ctl", "-D", self.data, "-m", mode, "-w", "-t", "60", "stop")

    def value(self, statement):
        return self.program("psql", "-AtXc", statement).strip()


@on_volume(limit=300)
def pgbench_and_crash_recovery(volume):
    volume.init().mount()
    server = Server(volume.mountpoint / "data", volume.root / "sockets")
    server.init()
    server.start()
    server.program("pgbench", "-i", "-q", "-s", "2" if full_run() else "1")
    server.program("pgbench", "-c", "4", "-j", "2", "-T", "10" if full_run() else "4")
    server.value("CREATE TABLE kept AS SELECT generate_series(1, 10000) AS n")
    server.stop("immediate")
    server.start()
    log = (server.sockets / "log").read_text()
    assert "database system was not properly shut down" in log, "the immediate stop was not a crash"
    equal(server.value("SELECT sum(n) FROM kept"), "50005000")
    equal(server.value("SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM"
                       " pgbench_branches) AND (SELECT sum(delta) FROM pgbench_history) = (SELECT sum(tbalance)"
                       " FROM pgbench_tellers)"), "t", "pgbench's sums agree")
    server.stop("fast")
    server.program("pg_checksums", "--check", "-D", server.data)
    volume.remount()
    server.program("pg_checksums", "--check", "-D", server.data)
    server.start()
    equal(server.value("SELECT count(*) FROM kept"), "10000")
    server.program("pg_dump", "-f", server.sockets / "dump.sql")
    server.stop("fast")
    for file in (server.sockets / "log",):
        assert "PANIC" not in file.read_text() and "could not fsync" not in file.read_text()
    volume.unmount().check()
