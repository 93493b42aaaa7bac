"""Where things are: boxes, views, and what a view does to a map of cells."""

from tokenlabel.geometry.box import Box as Box
from tokenlabel.geometry.render import render as render
from tokenlabel.geometry.resample import Resampler as Resampler
from tokenlabel.geometry.resample import TokenSpans as TokenSpans
from tokenlabel.geometry.resample import area_weights as area_weights
from tokenlabel.geometry.resample import coverage as coverage
from tokenlabel.geometry.resample import resample as resample
from tokenlabel.geometry.view import View as View
