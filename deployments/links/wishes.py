"""Arguments of a call that only its router looks at.

Serve sends the module of a router by value, so that classes of it are others in each process, and no argument is an instance of them. This
module goes by reference.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from model_core.messages import Message
from model_core.types import Numerics


@dataclass(frozen=True, slots=True)
class Avoid(Message):
    """An argument of a call that only its router looks at: where it had better not go.

    Attributes:
        actors: replicas by their actors.
        unlike: replicas that round otherwise than this.
    """

    actors: frozenset[str] = frozenset()
    unlike: Numerics = field(default_factory=Numerics)


@dataclass(frozen=True, slots=True)
class Only(Message):
    """An argument of a call that only its router looks at: the one replica that the call is for, by its actor.

    Where that is gone, another one gets the call, and has to say that it knows nothing of the matter.
    """

    actor: str
