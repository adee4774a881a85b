"""Find the real programs that tests run against."""

import os
import shutil
from typing import NoReturn

import pytest


def program(name: str, found_in: str = "Debian: prometheus, prometheus-alertmanager") -> str:
    """Give the path of a program; without it skip the test, or fail it where CI is set."""
    path = shutil.which(name)
    if path is None:
        absent(f"{name} is not on the PATH ({found_in})")
    return path


def absent(reason: str) -> NoReturn:
    """Skip the test, or fail it where CI is set.

    A laptop need not have Prometheus. A CI that has lost it would go green on nothing.
    """
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
