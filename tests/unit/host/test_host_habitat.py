"""Habitats: what differs in what a child takes over shows, what a process did on its own does not."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from firkin.host import habitat


@contextmanager
def sleeper(change: Callable[[], object]) -> Iterator[int]:
    """A child that was changed before it became another program."""
    # What a child changes of itself before its exec is the very subject.
    child = subprocess.Popen(["sleep", "60"], preexec_fn=change, start_new_session=True)  # noqa: PLW1509
    try:
        yield child.pid
    finally:
        child.kill()
        child.wait()


def test_a_child_has_its_parents() -> None:
    with sleeper(lambda: None) as pid:
        assert habitat.of(pid) == habitat.of(os.getpid())


@pytest.mark.parametrize(
    "change",
    [
        lambda: os.umask(0o007),
        lambda: os.nice(1),
        lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (99, resource.getrlimit(resource.RLIMIT_NOFILE)[1])),
        lambda: signal.signal(signal.SIGWINCH, signal.SIG_IGN),  # which nohup(1) leaves alone
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]),
        lambda: os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]),
        lambda: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)),
    ],
    ids=["umask", "nice", "limit", "ignored signal", "blocked signal", "processors", "scheduling"],
)
def test_whatever_a_child_is_made_with_shows(change: Callable[[], object]) -> None:
    with sleeper(change) as pid:
        assert habitat.of(pid) != habitat.of(os.getpid())


def test_nobodys_habitat_is_an_error() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(OSError, match="No such"):
        habitat.of(child.pid)
