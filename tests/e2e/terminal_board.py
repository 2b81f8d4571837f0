"""`bessemer top` on a terminal: what it shows, how it ends, and that the terminal is then as it was."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
import unittest

from server import Server

SIZE = (30, 100)
LEAVE_SCREEN = "\x1b[?1049l"
SHOW_CURSOR = "\x1b[?25h"


class Board:
    """A `bessemer top` on a terminal of its own."""

    def __init__(self, *arguments):
        self.terminal, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
        self.before = termios.tcgetattr(inside)
        # Kept open, so that what it was set to can be looked at after the end.
        self.inside = inside
        command = [os.environ["BESSEMER"], "top", *arguments]
        environment = dict(os.environ, TERM="xterm-256color")
        self.process = subprocess.Popen(
            command, stdin=inside, stdout=inside, stderr=inside, env=environment, start_new_session=True
        )
        self.seen = ""

    def until(self, pattern):
        """Reads on until the screen was sent this, without what moves the cursor and sets colours."""
        deadline = time.monotonic() + 30
        while not re.search(pattern, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.seen)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{pattern} in {self.seen!r}")
            self.read()

    def read(self):
        ready, _, _ = select.select([self.terminal], [], [], 0.1)
        if ready:
            self.seen += os.read(self.terminal, 65536).decode(errors="replace")

    def send(self, keys):
        os.write(self.terminal, keys.encode())

    def end(self):
        """The exit code."""
        deadline = time.monotonic() + 20
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                self.process.kill()
                raise TimeoutError("it does not end")
            self.read()
        self.read()
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.terminal)
        os.close(self.inside)


class TerminalBoard(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.stop)

    def board(self, *arguments):
        board = Board("--url", self.server.operator, "--interval", "200ms", *arguments)
        self.addCleanup(board.close)
        return board

    def restored(self, board):
        self.assertEqual(termios.tcgetattr(board.inside), board.before)
        self.assertGreater(board.seen.rfind(LEAVE_SCREEN), board.seen.rfind("Throughput"))
        self.assertIn(SHOW_CURSOR, board.seen)

    def test_keys_end_it(self):
        for keys in ("q", "\x03", "\x1b"):
            with self.subTest(keys=keys):
                board = self.board()
                board.until("Throughput")
                board.until("running")
                self.assertNotEqual(termios.tcgetattr(board.inside), board.before, "the terminal is the board's")
                board.send(keys)
                self.assertEqual(board.end(), 0)
                self.restored(board)

    def test_signals_end_it(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(signal=number):
                board = self.board()
                board.until("Throughput")
                board.process.send_signal(number)
                self.assertEqual(board.end(), 0)
                self.restored(board)

    def test_a_server_that_ends_is_told_of(self):
        server = Server()
        board = Board("--url", server.operator, "--interval", "200ms")
        self.addCleanup(board.close)
        board.until("Throughput")
        self.assertEqual(server.stop(), 0)
        board.until("no answer")
        board.send("q")
        self.assertEqual(board.end(), 0)
        self.restored(board)

    def test_an_error_leaves_the_terminal_alone(self):
        board = Board("--url", "http://127.0.0.1:1")
        self.addCleanup(board.close)
        board.until("error: http://127.0.0.1:1: ")
        self.assertEqual(board.end(), 1)
        self.assertEqual(termios.tcgetattr(board.inside), board.before)
        self.assertNotIn(LEAVE_SCREEN, board.seen)


if __name__ == "__main__":
    unittest.main(verbosity=2)
