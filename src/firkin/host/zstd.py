"""zstd(1) as a filter between a file and us: bytes in, bytes out, and no more memory than a window of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from firkin.host.program import failure
from firkin.host.run import find

MAGIC = b"\x28\xb5\x2f\xfd"
WINDOW = "--memory=128MB"  # what a frame may ask for; a hostile one asks for more
READ_BYTES = 1 << 18


@contextmanager
def packing(target: IO[bytes]) -> Iterator[IO[bytes]]:
    """What is written into the answer arrives in `target` compressed, all of it by the end of the scope.

    Raises:
        ProgramMissing, ProgramFailed, NoSpace: there is no zstd, or it could not write.
    """
    argv = ["zstd", "-q", "-c", "-T0"]
    with subprocess.Popen(
        [find("zstd"), *argv[1:]], stdin=subprocess.PIPE, stdout=target, stderr=subprocess.PIPE
    ) as child:
        assert child.stdin is not None  # PIPE above
        try:
            yield child.stdin
        except BrokenPipeError:
            pass  # it ended, and tells why below
        except BaseException:
            child.kill()
            raise
        finally:
            with suppress(BrokenPipeError):
                child.stdin.close()
        _check(argv, child)


@contextmanager
def unpacking(source: IO[bytes]) -> Iterator[Iterator[bytes]]:
    """The content of a compressed file, piece by piece. Whoever wants no more of it just leaves.

    Raises:
        ProgramMissing, ProgramFailed: there is no zstd, or the file is damaged; the latter at its end.
    """
    argv = ["zstd", "-q", "-d", "-c", WINDOW]
    with subprocess.Popen(
        [find("zstd"), *argv[1:]], stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None  # PIPE above
        output = child.stdout

        def pieces() -> Iterator[bytes]:
            while piece := output.read(READ_BYTES):
                yield piece
            _check(argv, child)

        try:
            yield pieces()
        finally:
            child.kill()


def _check(argv: list[str], child: subprocess.Popen[bytes]) -> None:
    assert child.stderr is not None  # PIPE above
    said = child.stderr.read(8192).decode(errors="replace")
    if child.wait() != 0:
        raise failure(argv, child.returncode, said)
