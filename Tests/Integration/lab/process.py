"""Child processes that never outlive this one, not even when it is killed."""

import signal
import subprocess


class CommandFailed(RuntimeError):
    pass


def call(*words, feed: str | None = None, timeout: float = 20) -> str:
    """Runs a command to its end and returns its standard output."""
    words = [str(word) for word in words]
    done = subprocess.run(words, input=feed, capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[:500]
        raise CommandFailed(f"{' '.join(words)}: exit {done.returncode}: {said}")
    return done.stdout


def spawn(words, death_signal: str = "KILL", **options) -> subprocess.Popen:
    """Starts a command that dies with the calling thread, in a session of its own.

    Of its own, so that a Ctrl-C in the terminal reaches only the laboratory, which then ends its children in order.
    `setpriv` sets the death signal instead of a `preexec_fn`, which is not safe beside threads.
    """
    words = [str(word) for word in words]
    return subprocess.Popen(["setpriv", "--pdeathsig", death_signal, *words], start_new_session=True, **options)


def stop(child: subprocess.Popen, patience: float = 20) -> bool:
    """SIGTERM, and SIGKILL where that does not help. True if the child ended by itself or by SIGTERM."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            return False
    return True
