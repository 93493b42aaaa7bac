"""One recipe per published result, and one to start from with images of your own.

A recipe is a function without arguments whose docstring says where its numbers come from. Its smoke
variant is the same recipe with a small model and so few updates that a laptop runs it in seconds.
"""

from tokenlabel.recipes.catalog import Entry as Entry
from tokenlabel.recipes.catalog import catalog as catalog
from tokenlabel.recipes.catalog import copy as copy
from tokenlabel.recipes.catalog import text as text
from tokenlabel.recipes.registry import get as get
from tokenlabel.recipes.registry import names as names
from tokenlabel.recipes.registry import smoke as smoke
