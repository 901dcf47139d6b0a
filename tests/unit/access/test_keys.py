"""Keys: what they look like, who shows one, and what they allow."""

import hmac
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import structlog.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.access.callers import ANYBODY, NOBODY, Caller
from gateway.access.keyring import Keyring, StoredKey
from gateway.access.keys import Pepper, id_of, new_key
from gateway.access.models import check_patterns, matches
from gateway.access.roles import Role
from gateway.access.secret_file import secret_in
from gateway.errors import Forbidden, Unauthenticated
from testbed.stored_key import PEPPER, KeyRow

NOW_S = 1_000_000.0


async def keyring(*rows: StoredKey, bootstrap: str | None = None) -> Keyring:
    async def read() -> Sequence[StoredKey]:
        return rows

    made = Keyring(PEPPER, read, bootstrap=bootstrap)
    await made.refresh()
    return made


def key() -> tuple[str, KeyRow]:
    made = new_key()
    return made.text, KeyRow(made.id, PEPPER.digest(made.text))


def test_a_key_has_256_random_bits_and_names_its_id() -> None:
    """ogw_, the id, and 43 characters of base64; never the same twice, never in a repr."""
    made = {new_key().text for _ in range(1000)}
    assert len(made) == 1000
    for text in made:
        found = re.fullmatch(r"ogw_([0-9a-f]{12})_([A-Za-z0-9_-]{43})", text)
        assert found
        assert id_of(text) == found[1]
    one = new_key("0123456789ab")
    assert id_of(one.text) == one.id == "0123456789ab"
    assert one.text not in repr(one)


async def test_without_any_key_everybody_may_do_everything() -> None:
    """As long as nobody has made a key, whatever is shown is nobody's business."""
    ring = await keyring()
    assert ring.open
    assert ring.caller(None, NOW_S) is ring.caller("anything", NOW_S) is ANYBODY


async def test_a_key_names_its_caller_and_none_is_nobody() -> None:
    """The right text is the caller of its row; no text is a caller without a role."""
    text, row = key()
    ring = await keyring(replace(row, role="operator", models=["a*"]))
    caller = ring.caller(text, NOW_S)
    assert (caller.name, caller.role, caller.models) == ("key ci", Role.OPERATOR, ("a*",))
    assert ring.caller(None, NOW_S) is NOBODY


@settings(deadline=None)
@given(st.text(max_size=600))
async def test_no_other_text_is_a_key(text: str) -> None:
    """Whatever is not the key to the letter is refused, and nothing of it is said back."""
    right, row = key()
    ring = await keyring(row, bootstrap="the first admin's")
    for shown in (text, right + text, right[:-1], right[:-1] + "\x00", f"ogw_{row.id}_{text}"):
        if shown in {right, "the first admin's"}:
            continue
        with pytest.raises(Unauthenticated) as refused:
            ring.caller(shown, NOW_S)
        assert len(shown) < 8 or shown not in str(refused.value)


async def test_expired_and_revoked_keys_are_refused() -> None:
    """From its second on a key that expires is none, and one that was revoked never again."""
    text, row = key()
    ring = await keyring(replace(row, expires_at_s=NOW_S))
    assert ring.caller(text, NOW_S - 0.001).id == row.id
    with pytest.raises(Unauthenticated, match="expired"):
        ring.caller(text, NOW_S)
    ring = await keyring(replace(row, revoked_at_s=NOW_S - 1))
    with pytest.raises(Unauthenticated, match="revoked"):
        ring.caller(text, NOW_S)
    assert not ring.open


async def test_a_rotated_key_is_good_for_its_grace() -> None:
    """Old and new name one caller until the grace is over; then the new one alone does."""
    old, row = key()
    new = new_key(row.id).text
    rotated = replace(
        row,
        digest=PEPPER.digest(new),
        previous_digest=row.digest,
        previous_until_s=NOW_S,
    )
    ring = await keyring(rotated)
    assert ring.caller(old, NOW_S - 1) == ring.caller(new, NOW_S - 1) == ring.caller(new, NOW_S)
    with pytest.raises(Unauthenticated):
        ring.caller(old, NOW_S)


async def test_the_key_of_the_settings_is_an_admins() -> None:
    """It closes the gateway by itself, and is no other than it is."""
    ring = await keyring(bootstrap="correct horse battery staple")
    assert not ring.open
    assert ring.caller("correct horse battery staple", NOW_S).role is Role.ADMIN
    with pytest.raises(Unauthenticated):
        ring.caller("correct horse battery stapl", NOW_S)


async def test_keys_of_another_secret_are_named_and_refused() -> None:
    """What was hashed with another secret cannot be checked: the name is logged, the key wrong."""
    text, row = key()
    other = Pepper(b"q" * 32)
    assert other.id != PEPPER.id
    with structlog.testing.capture_logs() as logged:
        ring = await keyring(replace(row, digest=other.digest(text), pepper=other.id))
    with pytest.raises(Unauthenticated):
        ring.caller(text, NOW_S)
    assert [(line["event"], line["keys"]) for line in logged] == [
        ("keys_of_another_secret", ["ci"])
    ]


@pytest.mark.parametrize("asked", list(Role))
@pytest.mark.parametrize("has", [*Role, None])
def test_a_role_has_the_rights_of_those_before_it(has: Role | None, asked: Role) -> None:
    """Infer < operator < admin, and a caller without a role has none of them."""
    caller = Caller("id", "name", has)
    if has is None:
        with pytest.raises(Unauthenticated):
            caller.require(asked)
    elif list(Role).index(has) < list(Role).index(asked):
        with pytest.raises(Forbidden):
            caller.require(asked)
    else:
        caller.require(asked)
    caller.require(None)


@pytest.mark.parametrize(
    ("patterns", "seen", "unseen"),
    [
        ((), ["a", "model_10"], []),
        (("*",), ["a", "model_10"], []),
        (("flowers",), ["flowers"], ["flowers2", "Flowers", "aflowers", "flowers\n", ""]),
        (("flowers-*", "b?"), ["flowers-1", "flowers-", "b1"], ["flowers", "b", "b12", "xb1"]),
        (("a.c",), ["a.c"], ["abc"]),
    ],
)
def test_patterns(patterns: tuple[str, ...], seen: list[str], unseen: list[str]) -> None:
    """A star is any characters, a question mark one; everything else is itself, all of it."""
    checked = check_patterns(patterns)
    assert [name for name in [*seen, *unseen] if matches(checked, name)] == seen


@pytest.mark.parametrize("pattern", ["", "a b", "a/b", "[ab]", "a" * 129, "ä"])
def test_a_pattern_that_no_name_matches_is_refused(pattern: str) -> None:
    """A typing error is told at once, and not by a key that sees nothing."""
    with pytest.raises(ValueError, match="pattern"):
        check_patterns([pattern])


def test_a_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    """The file has mode 600 and 32 bytes, and what is in it stays; no draft is left."""
    path = tmp_path / "secret"
    first = secret_in(path)
    assert len(bytes.fromhex(first)) == 32
    assert secret_in(path) == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


async def test_how_long_a_refusal_takes_says_nothing_about_the_key() -> None:
    """Wrong in the first character or in the last, of a known id or not: the same time."""
    right, row = key()
    ring = await keyring(row, *(key()[1] for _ in range(200)))
    last = right[:-2] + ("AA" if right[-2:] != "AA" else "BB")
    first = right[:17] + ("A" if right[17] != "A" else "B") + right[18:]
    stranger = new_key().text
    times_s: dict[str, list[float]] = {first: [], last: [], stranger: []}
    for turn in range(6000):
        for shown in sorted(times_s, key=lambda text: hash((turn, text))):
            began_s = time.perf_counter()
            try:
                ring.caller(shown, NOW_S)
            except Unauthenticated:
                times_s[shown].append(time.perf_counter() - began_s)
    medians_s = {shown: statistics.median(taken_s) for shown, taken_s in times_s.items()}
    spread = max(medians_s.values()) / min(medians_s.values())
    assert spread < 1.25, medians_s


@pytest.mark.parametrize("length", [1, 32, 63, 64, 65, 200])
def test_what_is_stored_is_the_hmac_of_the_key(length: int) -> None:
    """The keyed hash is HMAC-SHA-256 as the standard library has it, for secrets of any length."""
    secret = bytes(range(length))
    for text in ("", "k", new_key().text, "é" * 100, "\udcff"):
        wanted = hmac.digest(secret, text.encode("utf-8", "surrogatepass"), "sha256")
        assert Pepper(secret).digest(text) == wanted


async def test_a_key_that_was_right_is_checked_again_when_it_may_have_changed() -> None:
    """Shown a second time it is refused once it has expired, was replaced, or was revoked."""
    text, row = key()
    rows = [replace(row, expires_at_s=NOW_S + 10)]

    async def read() -> Sequence[StoredKey]:
        return rows

    ring = Keyring(PEPPER, read)
    await ring.refresh()
    for _ in range(3):
        assert ring.caller(text, NOW_S).id == row.id
    with pytest.raises(Unauthenticated, match="expired"):
        ring.caller(text, NOW_S + 10)
    digest, until_s = PEPPER.digest(new_key(row.id).text), NOW_S + 5
    rows[:] = [
        replace(row, digest=digest, previous_digest=row.digest, previous_until_s=until_s),
    ]
    await ring.refresh()
    for _ in range(3):
        assert ring.caller(text, NOW_S).id == row.id
    with pytest.raises(Unauthenticated, match="wrong"):
        ring.caller(text, until_s)
    rows[:] = [row]
    await ring.refresh()
    assert ring.caller(text, NOW_S).id == row.id
    rows[:] = [replace(row, revoked_at_s=NOW_S)]
    await ring.refresh()
    with pytest.raises(Unauthenticated, match="revoked"):
        ring.caller(text, NOW_S)


async def test_no_more_keys_are_known_by_their_text_than_fit() -> None:
    """A thousand and more keys, each shown twice: every one is let in, every time."""
    made = [key() for _ in range(1100)]
    ring = await keyring(*(row for _, row in made))
    for _ in range(2):
        for text, row in made:
            assert ring.caller(text, NOW_S).id == row.id
