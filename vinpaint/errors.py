# SPDX-License-Identifier: Apache-2.0
"""What is said when the user's input cannot be used."""


class InputError(ValueError):
    """The user's input is wrong.

    The message names the argument, what was expected, what came, and what to do about it.
    """


class InputWarning(UserWarning):
    """Something of the input cannot be kept in the output; the message names it."""
