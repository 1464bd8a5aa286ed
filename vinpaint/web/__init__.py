# SPDX-License-Identifier: Apache-2.0
"""The page of ``vinpaint web``: needs the extra ``web``."""
