"""The only writer: files that are whole or not there, locks, and names that stay in their folder."""

from tokenlabel.files.locks import Locked as Locked
from tokenlabel.files.locks import lock_file as lock_file
from tokenlabel.files.locks import locked as locked
from tokenlabel.files.names import cache_folder as cache_folder
from tokenlabel.files.names import claim_file as claim_file
from tokenlabel.files.names import claim_folder as claim_folder
from tokenlabel.files.names import contents as contents
from tokenlabel.files.names import inside as inside
from tokenlabel.files.writing import disk_errors as disk_errors
from tokenlabel.files.writing import permit as permit
from tokenlabel.files.writing import replacing as replacing
from tokenlabel.files.writing import replacing_folder as replacing_folder
from tokenlabel.files.writing import scratch as scratch
from tokenlabel.files.writing import sha256_of as sha256_of
from tokenlabel.files.writing import short_of_space as short_of_space
from tokenlabel.files.writing import sync as sync
from tokenlabel.files.writing import write_atomically as write_atomically
from tokenlabel.files.writing import write_tensors as write_tensors
from tokenlabel.files.writing import write_torch as write_torch
