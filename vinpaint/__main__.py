# SPDX-License-Identifier: Apache-2.0
"""``python -m vinpaint``: the command line."""

import sys

from vinpaint.cli import main

sys.exit(main())
