"""The command line."""

import typer

from streams.commands import keys, killswitch, orders, policy, workers
from streams.commands.backtest import backtest
from streams.commands.doctor import doctor
from streams.commands.explain import explain, incidents
from streams.commands.replay import replay
from streams.commands.status import status

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Notices within seconds that an AI-gateway identity is misused, and cuts it off.",
)
for command in (replay, backtest, explain, incidents, status, doctor, workers.demo, workers.init, workers.run):
    app.command()(command)
for order in (orders.revoke, orders.suspend, orders.throttle, orders.restore, orders.approve):
    app.command()(order)

_keys = typer.Typer(no_args_is_help=True, help="The keys that sign commands.")
_keys.command()(keys.new)
_keys.command()(keys.rotate)
_keys.command("list")(keys.show)
_keys.command()(keys.retire)
app.add_typer(_keys, name="keys")
app.add_typer(killswitch.app, name="killswitch")

_policy = typer.Typer(no_args_is_help=True, help="The policy: every threshold and response.")
_policy.command()(policy.check)
_policy.command()(policy.show)
app.add_typer(_policy, name="policy")


def main() -> None:
    """The `tripswitch` command."""
    app()
