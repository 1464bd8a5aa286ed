# SPDX-License-Identifier: Apache-2.0
"""``python -m vinpaint``: the command line."""

import sys

from vinpaint.cli import main

if __name__ == "__main__":  # not where a process that was started here imports it again
    sys.exit(main())
