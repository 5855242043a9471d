"""One module per package ecosystem; `base.py` says what each can do."""

from collections.abc import Mapping

from octave.packages.ecosystems.base import Ecosystem
from octave.packages.ecosystems.npm import Npm
from octave.packages.ecosystems.pypi import Pypi

ECOSYSTEMS: Mapping[str, Ecosystem] = {"npm": Npm(), "pypi": Pypi()}
"""By the kind in front of a package: `npm:NAME`, `pypi:NAME`."""
