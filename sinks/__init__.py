"""Where tripswitch's results go: ClickHouse, the kill switch, Slack, dead letters. `sinks.errors`: what they answer."""
