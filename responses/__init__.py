"""Responses: findings and a tenant's activity in, incidents and commands out. Pure: no input or output, no clock."""

from responses.blocks import Outcome
from responses.config import Config
from responses.decider import Decider

__all__ = ["Config", "Decider", "Outcome"]
