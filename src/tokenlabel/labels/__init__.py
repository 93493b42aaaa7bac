"""Label maps: what they are, where they are kept, and how they become targets."""

from tokenlabel.labels.label_map import LabelMap as LabelMap
from tokenlabel.labels.token_targets import TargetKind as TargetKind
from tokenlabel.labels.token_targets import token_targets as token_targets
