"""A `bessemer serve` as a process. BESSEMER names the program."""

import os
import re
import signal
import subprocess
import threading


class Server:
    """A running `bessemer serve`; its log is kept for the report of a failure."""

    def __init__(self, *arguments, **environment):
        command = [os.environ["BESSEMER"], "serve", "--port", "0", "--admin-port", "0", *arguments]
        environment = dict(os.environ, **environment)
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.log = []
        self.operator = self._find("operator's listener on", command)
        self.url = self._find("listening on", command)
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True)
        self.reader.start()

    def _find(self, what, command):
        """The address that a line of the log tells."""
        for line in self.process.stderr:
            self.log.append(line)
            found = re.search(rf"{what} (http://\S+)", line)
            if found:
                return found.group(1)
        raise RuntimeError(f"{command} ended with {self.process.wait()}:\n{''.join(self.log)}")

    def stop(self):
        """Sends SIGTERM and gives the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.reader.join(timeout=5)
            self.process.stderr.close()
