"""`tl.segment`: networks that give every pixel a class, trained, measured and used."""

from tokenlabel.api.segment.comparison import SegmentComparison as SegmentComparison
from tokenlabel.api.segment.comparison import compare as compare
from tokenlabel.api.segment.evaluation import SegmentEvaluation as SegmentEvaluation
from tokenlabel.api.segment.evaluation import evaluate as evaluate
from tokenlabel.api.segment.prediction import Segmented as Segmented
from tokenlabel.api.segment.prediction import predict as predict
from tokenlabel.api.segment.training import Choices as Choices
from tokenlabel.api.segment.training import compose_recipe as compose_recipe
from tokenlabel.api.segment.training import train as train

MULTI_SCALE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""The scales of published multi-scale results; each is mirrored too."""
