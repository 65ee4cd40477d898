"""The interactive shell at a server, as a person at a terminal meets it. Arguments: the program, and the address of the server."""

import os
import pty
import re
import select
import sys
import time

PROGRAM, URL = sys.argv[1:3]
LIMIT = 60


class Terminal:
    """A terminal that answers when it is asked where the cursor is, and keeps what was shown."""

    def __init__(self, *args, **environment):
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.environ.update({"TERM": "xterm", "COLUMNS": "120", "LINES": "40", **environment})
            os.execv(PROGRAM, [PROGRAM, *args])
        self.shown = ""

    def until(self, pattern, limit=LIMIT):
        """Waits until something is shown, and gives everything up to there."""
        end = time.monotonic() + limit
        while not (found := re.search(pattern, self.shown, re.DOTALL)):
            assert time.monotonic() < end, f"{pattern!r} is not shown; what is: {self.shown!r}"
            if not select.select([self.descriptor], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(self.descriptor, 65536)
            except OSError as error:
                raise AssertionError(f"the program has ended; it has shown {self.shown!r}") from error
            for _ in range(data.count(b"\x1b[6n")):
                os.write(self.descriptor, b"\x1b[1;1R")
            text = data.decode(errors="replace")
            self.shown += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>78]", "", text)
        before, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return before

    def again_until(self, text, pattern):
        """Types something until it has an effect: what is typed too early is not heard."""
        for _ in range(LIMIT):
            self.type(text)
            try:
                return self.until(pattern, 1)
            except AssertionError:
                pass
        raise AssertionError(f"{pattern!r} is not shown; what is: {self.shown!r}")

    def type(self, text):
        os.write(self.descriptor, text.encode())

    def ended(self):
        end = time.monotonic() + LIMIT
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < end, "the program does not end"
            if select.select([self.descriptor], [], [], 0.1)[0]:
                try:
                    os.read(self.descriptor, 65536)
                except OSError:
                    pass


shell = Terminal("--connect", URL)
shell.until("leaves")
shell.type("\\d\r")
shell.until(r"accounts.*table.*id, balance.*per_colour.*materialized view.*sales.*stream")
shell.type("\\d accounts\r")
shell.until(r"balance.*BIGINT.*\(2 rows\)")
shell.type("\\sf accounts\r")
shell.until(r"CREATE TABLE accounts")
shell.type("\\sf accunts\r")
shell.until(r"Did you mean .accounts.")
shell.type("\\timing on\r")
shell.until("timing is on")
shell.type("SELECT 7 AS seven;\r")
shell.until(r"seven.*7.*\(1 row\).*time: ")
shell.type("SELECT nosuch FROM accounts;\r")
shell.until(r"column .nosuch. does not exist.*\^")
shell.type("INSERT INTO sales VALUES (1, 'green', 1.5);\r")
shell.until(r"INSERT 1.*time: ")
shell.type("SELECT colour, n + 41 AS m FROM per_colour EMIT CHANGES;\r")
shell.until(r"green[^\n]*42")
shell.again_until("\x03", r"\^C.*millstream> ")
shell.type("SELECT 'after' || ' the view' AS t;\r")
shell.until(r"after the view.*\(1 row\).*time: .*millstream> ")
shell.type("SELECT count(*) FROM generate_series(1, 1000000000000);\r")
# A terminal forgets what was typed before a Ctrl-C and not read.
shell.until(r"1000000000000\);[^\n]*\n")
shell.again_until("\x03", "cancelled")
shell.type("\\q\r")
assert shell.ended() == 0

asked = Terminal("--connect", URL.replace("//", "//ada@"), "-c", "SELECT 'let in' AS answer")
asked.until("password for ada: ")
asked.type("a secret\r")
shown = asked.until("let in")
assert "a secret" not in shown, shown
assert asked.ended() == 0
