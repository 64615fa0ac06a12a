"""git on the mount: a repository of thousands of files, cloned, packed, checked, switched."""

import random

from harness import equal, full_run, on_mount, run

SETTINGS = {
    "GIT_AUTHOR_NAME": "Test", "GIT_AUTHOR_EMAIL": "test@example.org", "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.org", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
}


def git(directory, *words, limit=120):
    return run(["git", "-c", "core.fsync=all", "-c", "init.defaultBranch=main", "-C", directory, *words],
               env=SETTINGS, limit=limit).stdout


def write_files(top, count, seed):
    chance = random.Random(seed)
    for number in range(count):
        path = top / f"dir{number % 40}" / f"sub{number % 7}" / f"file {number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.choice((0, 10, 500, 3552, 5000))))


@on_mount(limit=300)
def life_of_a_repository(d):
    count = 3_000 if full_run() else 300
    here = d / "repository"
    here.mkdir()
    git(here, "init")
    write_files(here, count, 1)
    git(here, "add", ".")
    git(here, "commit", "-qm", "first")
    git(here, "checkout", "-qb", "other")
    write_files(here, count // 2, 2)
    git(here, "add", ".")
    git(here, "commit", "-qm", "second")
    for branch in ("main", "other", "main"):
        git(here, "checkout", "-q", branch)
        equal(git(here, "status", "--porcelain"), "", f"status on {branch}")
    git(here, "gc", "-q", "--prune=now")
    git(here, "fsck", "--full", "--strict")
    git(d, "clone", "-q", "--no-local", here, "clone")
    git(d / "clone", "checkout", "-q", "other")
    equal(git(d / "clone", "status", "--porcelain"), "")
    git(d / "clone", "fsck", "--full")
    git(d / "clone", "merge", "-q", "-s", "ours", "-m", "merge", "origin/main")
    git(here, "worktree", "add", "-q", d / "worktree", "other")
    equal(git(d / "worktree", "status", "--porcelain"), "")
    equal(git(here, "rev-parse", "other^{tree}"), git(d / "clone", "rev-parse", "HEAD^{tree}"))
