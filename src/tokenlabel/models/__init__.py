"""Students: LV-ViT, and any timm backbone made dense. Importing registers LV-ViT in timm."""

from tokenlabel.models.dense import DenseModel as DenseModel
from tokenlabel.models.dense import create_model as create_model
from tokenlabel.models.factory import NoWeightsError as NoWeightsError
from tokenlabel.models.factory import build_from as build_from
from tokenlabel.models.factory import build_model as build_model
from tokenlabel.models.factory import load_weights as load_weights
from tokenlabel.models.factory import read_state_dict as read_state_dict
from tokenlabel.models.factory import weights_or as weights_or
from tokenlabel.models.lvvit import LVViT as LVViT
