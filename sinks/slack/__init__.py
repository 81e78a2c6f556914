"""Slack: one message per incident that stays true."""

from sinks.slack.message import incident_message
from sinks.slack.sink import SlackSink

__all__ = ["SlackSink", "incident_message"]
