"""Label maps: what they are, where they are kept, and how they become targets."""

from tokenlabel.labels.codec import Codec as Codec
from tokenlabel.labels.label_map import LabelMap as LabelMap
from tokenlabel.labels.store import LabelStore as LabelStore
from tokenlabel.labels.token_targets import TargetKind as TargetKind
from tokenlabel.labels.token_targets import token_targets as token_targets
from tokenlabel.labels.writer import LabelStoreWriter as LabelStoreWriter
