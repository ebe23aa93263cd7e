"""Cleanup that happens once, whole, and also after SIGINT, SIGTERM or SIGHUP.

A signal becomes an exception in the main thread. While a scope closes it is only remembered: an interrupted cleanup
is the one thing a laboratory cannot afford. After the first signal all others are ignored.
"""

import atexit
import contextlib
import signal

_closing = 0
_pending = None
_interrupted = False
_open: list["Scope"] = []


class Interrupted(KeyboardInterrupt):
    """KeyboardInterrupt, because pytest and contextlib already treat that one as 'tear down and stop'."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


def catch_signals():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _on_signal)


def _on_signal(number, _frame):
    global _pending, _interrupted
    if _interrupted:
        return
    if _closing:
        _pending = number
        return
    _interrupted = True
    raise Interrupted(number)


@contextlib.contextmanager
def shielded():
    """Signals wait until the outermost shield ends."""
    global _closing, _pending, _interrupted
    _closing += 1
    try:
        yield
    finally:
        _closing -= 1
        if not _closing and _pending is not None and not _interrupted:
            number, _pending, _interrupted = _pending, None, True
            raise Interrupted(number)


class Scope(contextlib.ExitStack):
    """An ExitStack that closes under a shield, and at exit of the interpreter where nobody closed it.

    Register the undoing before doing, and make it tolerate that nothing was done: a signal may come between the two.
    """

    def __init__(self):
        super().__init__()
        _open.append(self)

    def __exit__(self, *exception):
        with shielded():
            if self in _open:
                _open.remove(self)
            return super().__exit__(*exception)

    @contextlib.contextmanager
    def building(self):
        """For the `__enter__` of what owns this scope: half built is taken down again."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self):
        self.__exit__(None, None, None)


@atexit.register
def _close_all():
    for scope in reversed(list(_open)):
        scope.close()
