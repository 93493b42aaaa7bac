"""The only writer: files that are whole or not there, locks, and names that stay in their folder."""

from tokenlabel.files.locks import Locked, lock_file, locked
from tokenlabel.files.names import claim_file, claim_folder, inside
from tokenlabel.files.writing import (
    disk_errors,
    permit,
    replacing,
    replacing_folder,
    scratch,
    short_of_space,
    sync,
    write_atomically,
    write_tensors,
    write_torch,
)

__all__ = [
    "Locked",
    "claim_file",
    "claim_folder",
    "disk_errors",
    "inside",
    "lock_file",
    "locked",
    "permit",
    "replacing",
    "replacing_folder",
    "scratch",
    "short_of_space",
    "sync",
    "write_atomically",
    "write_tensors",
    "write_torch",
]
