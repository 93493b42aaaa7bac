"""Comparisons: arms x seeds -> records -> table with paired differences -> verdict.

`tl.compare` is both this package and the verb: the package can be called.
"""

import sys
from types import ModuleType
from typing import Any

from tokenlabel.compare.comparison import Comparison as Comparison
from tokenlabel.compare.comparison import Line as Line
from tokenlabel.compare.plan import Plan as Plan
from tokenlabel.compare.plan import compare as compare
from tokenlabel.compare.record import Record as Record
from tokenlabel.compare.statistics import Difference as Difference


class _Callable(ModuleType):
    def __call__(self, **choices: Any) -> Comparison:
        """See `tokenlabel.compare.verb.compare`."""
        from tokenlabel.compare.verb import compare as verb

        return verb(**choices)


sys.modules[__name__].__class__ = _Callable
