"""Comparisons: arms x seeds -> records -> table with paired differences -> verdict."""

from tokenlabel.compare.comparison import Comparison as Comparison
from tokenlabel.compare.comparison import Line as Line
from tokenlabel.compare.plan import Plan as Plan
from tokenlabel.compare.plan import compare as compare
from tokenlabel.compare.record import Record as Record
from tokenlabel.compare.statistics import Difference as Difference
