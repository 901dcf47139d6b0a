"""
The types of JSON, as bodies of requests have them.

pydantic reads `true` as 1, `"5"` as 5 and `"yes"` as true, which the document of the API does not
allow: a client that mixes them up would never hear of it.
"""

from typing import Annotated

from pydantic import Field

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A finite number; a whole one is one too."""

Whole = Annotated[int, Field(strict=True)]
"""A whole number."""

Truth = Annotated[bool, Field(strict=True)]
"""true or false."""
