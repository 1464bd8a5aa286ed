# SPDX-License-Identifier: Apache-2.0
"""A script that runs a program and writes what came of it, as JSON: ``launch.py REPORT PROGRAM ARGUMENT…``.

Linux counts the memory of the process that starts a program as the program's own peak. So a program is started by
this one, which imports next to nothing, and not by one that holds torch and a clip.
"""

from __future__ import annotations

import json
import os
import signal
import sys

report, *words = sys.argv[1:]
try:
    # Python ignores these signals; programs expect not to.
    pid = os.posix_spawnp(words[0], words, os.environ, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ])
except OSError as error:
    found: dict[str, str | float] = {"error": str(error)}
else:
    _, status, usage = os.wait4(pid, 0)
    unit = 1 if sys.platform == "darwin" else 2**10
    found = {"code": os.waitstatus_to_exitcode(status), "memory": usage.ru_maxrss * unit / 2**20}
with open(report, "w") as file:  # noqa: PTH123 - pathlib is large
    json.dump(found, file)
