"""Which channels of a data set's images a model is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tokenlabel.data.decode import decode_image
from tokenlabel.data.levels import ChannelsError
from tokenlabel.data.source import ImageSource, Listing
from tokenlabel.data.survey import spread_indices
from tokenlabel.data.walk import is_array
from tokenlabel.errors import InputError

__all__ = ["of_channels"]

_TRIED = 4  # images whose channels are looked at


def of_channels(
    source: ImageSource, count: int, chosen: Sequence[int] | None = None
) -> ImageSource:
    """The same images for a model of `count` channels, which are those `chosen` of each image.

    Raises InputError where the images have others, by some that are looked into.
    """
    assert isinstance(source, Listing)
    numbers = None if chosen is None else tuple(chosen)
    made = replace(source, rules=replace(source.rules, channels=count, chosen=numbers))
    if (count, numbers) != (3, None) or any(is_array(key) for key in made.keys[:1]):
        faults = [fault for i in spread_indices(len(made), _TRIED) if (fault := _fault(made, i))]
        if faults and len(faults) == min(len(made), _TRIED):
            raise faults[0]
    return made


def _fault(source: Listing, index: int) -> InputError | None:
    """What is wrong with an image's channels, if anything is."""
    try:
        decode_image(source.read(index), source.keys[index], source.rules)
    except ChannelsError as error:
        return error
    except InputError:
        pass  # it cannot be read, which is another matter
    return None
