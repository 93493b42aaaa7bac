"""Students: LV-ViT, and any timm backbone made dense. Importing registers LV-ViT in timm."""

from tokenlabel.models.checkpoints import load_weights as load_weights
from tokenlabel.models.checkpoints import read_state_dict as read_state_dict
from tokenlabel.models.dense import DenseModel as DenseModel
from tokenlabel.models.dense import create_model as create_model
from tokenlabel.models.lvvit import LVViT as LVViT
