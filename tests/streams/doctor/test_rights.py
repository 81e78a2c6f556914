"""Rights as the broker has them."""

from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from streams.doctor.broker import judge_rights
from streams.rights import RIGHTS, bindings

ALL = [binding for role in RIGHTS for binding in bindings(role)]


def may_write(name: str, topic: str, pattern: ResourcePatternType = ResourcePatternType.LITERAL) -> AclBinding:
    allow = AclPermissionType.ALLOW
    return AclBinding(ResourceType.TOPIC, topic, pattern, name, "*", AclOperation.WRITE, allow)


def test_what_init_grants_is_enough_and_not_too_much() -> None:
    assert [check.state for check in judge_rights(ALL)] == ["ok"]


def test_what_is_missing_is_named() -> None:
    for binding in ALL:
        [check] = judge_rights([other for other in ALL if other is not binding])
        assert check.state == "failure"
        assert check.seen.startswith(f"{binding.principal} lacks {binding.operation.name}")


def test_others_who_may_write_the_kill_switch_are_named() -> None:
    prefixed = ResourcePatternType.PREFIXED
    more = [may_write("User:a", "llm.killswitch"), may_write("User:b", "llm.", prefixed), may_write("User:c", "*")]
    checks = list(judge_rights([*ALL, *more, may_write("User:d", "llm.usage")]))
    assert [(check.state, check.seen.split()[0]) for check in checks] == [
        ("warning", "User:a"),
        ("warning", "User:b"),
        ("warning", "User:c"),
    ]
