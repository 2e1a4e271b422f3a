"""Search spaces: domains, the space file, and binding it to a model. Needs no torch."""

from autocomp.space.binding import BoundSpace, Suggest, bind
from autocomp.space.domains import DOMAINS, Choice, Domain, IntRange, LogUniform, Scalar, Uniform
from autocomp.space.metrics import METRICS, Direction
from autocomp.space.objectives import Bound, Objective
from autocomp.space.schema import json_schema
from autocomp.space.space import Sampler, SearchSettings, SearchSpace

__all__ = [
    "DOMAINS",
    "METRICS",
    "Bound",
    "BoundSpace",
    "Choice",
    "Direction",
    "Domain",
    "IntRange",
    "LogUniform",
    "Objective",
    "Sampler",
    "Scalar",
    "SearchSettings",
    "SearchSpace",
    "Suggest",
    "Uniform",
    "bind",
    "json_schema",
]
