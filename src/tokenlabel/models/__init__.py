"""Students: LV-ViT, and any timm backbone made dense."""
