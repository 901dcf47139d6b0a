"""The tokens of an issuer: what is known, what is asked of the issuer, and how often."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.access.grants import Grant, caller_of, read_grants, values_of
from gateway.access.issuer import Issuer, IssuerAway
from gateway.access.roles import Role
from gateway.access.seals import Seals
from gateway.access.signing import TokenRules, VerifyingKey
from gateway.access.tokens import Tokens
from gateway.errors import Forbidden, IssuerUnavailable, Unauthenticated

OLD, NEW = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
RULES = TokenRules("https://issuer.example", ("gateway",), frozenset({"RS256"}), 30.0)
GRANTS = read_grants(["admins=admin", "shop=infer:flowers-*|tulips"])


class Keys(Issuer):
    """An issuer whose keys the test says."""

    def __init__(self) -> None:
        super().__init__(RULES.issuer)
        self.listed: dict[str, Any] | None = {"old": OLD}
        self.asked = 0

    async def keys(self) -> tuple[VerifyingKey, ...]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.listed is None:
            raise IssuerAway("away")
        return tuple(
            VerifyingKey(kid, key.public_key(), frozenset({"RS256"}))
            for kid, key in self.listed.items()
        )


def opened(issuer: Issuer, refetch_s: float = 0.0) -> Tokens:
    return Tokens(
        issuer, RULES, GRANTS, roles_claim="groups", name_claim="email", refetch_s=refetch_s
    )


@pytest.fixture
async def issuer() -> Keys:
    return Keys()


@pytest.fixture
async def tokens(issuer: Keys) -> AsyncIterator[Tokens]:
    made = opened(issuer)
    yield made
    await made.close()


def token(key: Any = OLD, kid: str = "old", **changed: Any) -> str:
    claims = {"iss": RULES.issuer, "aud": "gateway", "sub": "ada", "exp": time.time() + 60}
    claims |= {"groups": ["admins"], "email": "ada@example.com", **changed}
    return jwt.encode(claims, key, "RS256", {"kid": kid})


async def test_a_token_is_checked_once_and_known_until_its_end(tokens: Tokens) -> None:
    """Unlearned it is nobody's; learned it is its subject's, at every look, until it ends."""
    shown, now_s = token(), time.time()
    assert tokens.is_token(shown)
    with pytest.raises(Unauthenticated):
        tokens.caller(shown, now_s)
    await tokens.learn(shown)
    caller = tokens.caller(shown, now_s)
    assert (caller.id, caller.name, caller.role) == (
        "oidc:ada",
        "subject ada@example.com",
        Role.ADMIN,
    )
    # What is known is not checked again: without keys nothing could be.
    tokens._keys = ()
    await tokens.learn(shown)
    assert tokens.caller(shown, now_s + 89) is caller
    with pytest.raises(Unauthenticated) as refused:
        tokens.caller(shown, now_s + 91)
    assert refused.value.refusal == "token_expired"


async def test_a_token_without_a_role_is_good_and_may_nothing(tokens: Tokens) -> None:
    """Nobody gets in by the issuer's word alone."""
    shown = token(groups=["strangers"])
    await tokens.learn(shown)
    with pytest.raises(Forbidden):
        tokens.caller(shown, time.time())


async def test_a_new_key_is_asked_for_and_an_old_one_takes_its_tokens_with_it(
    issuer: Keys, tokens: Tokens
) -> None:
    """A rotation needs no restart, and a key that the issuer takes back is good for nothing."""
    first = token()
    await tokens.learn(first)
    issuer.listed = {"old": OLD, "new": NEW}
    second = token(NEW, "new")
    await tokens.learn(second)
    assert tokens.caller(first, time.time()) == tokens.caller(second, time.time())
    issuer.listed = {"new": NEW}
    await tokens._refetch()
    assert tokens.caller(second, time.time()).role is Role.ADMIN
    for look in (0, 1):
        with pytest.raises(Unauthenticated):
            tokens.caller(first, time.time())
        if look == 0:
            with pytest.raises(Unauthenticated):
                await tokens.learn(first)


async def test_made_up_keys_ask_the_issuer_once(issuer: Keys) -> None:
    """A flood of tokens with unknown keys is one question; tokens of known keys go on meanwhile."""
    tokens = opened(issuer, refetch_s=60.0)
    await tokens.learn(token())
    assert issuer.asked == 1
    flood = [token(NEW, f"made up {number}") for number in range(200)]
    answers = await asyncio.gather(*(tokens.learn(each) for each in flood), return_exceptions=True)
    assert issuer.asked == 1
    refused = [answer for answer in answers if isinstance(answer, Unauthenticated)]
    assert {type(answer).__name__ for answer in answers} <= {"Unauthenticated", "Overloaded"}
    assert len(refused) >= 64
    await tokens.learn(token(sub="grace"))
    assert len(tokens._known) == 2
    await tokens.close()


async def test_while_the_issuer_is_away_its_last_keys_hold(issuer: Keys, tokens: Tokens) -> None:
    """What they signed is taken; of what they did not, nobody can tell: 503 and not 401."""
    await tokens.learn(token())
    issuer.listed = None
    await tokens.learn(token(sub="grace"))
    with pytest.raises(IssuerUnavailable):
        await tokens.learn(token(NEW, "new"))
    issuer.listed = {"new": NEW}
    await tokens.learn(token(NEW, "new"))


async def test_a_key_or_a_long_text_is_no_token(tokens: Tokens) -> None:
    """Keys of ours do not look like one; what is too long is refused unread."""
    for text in ("ogw_0123456789ab_" + "A" * 43, "eyJx.y", "eyJx.y.z.w", "eyJ x.y.z", ""):
        assert not tokens.is_token(text)
    with pytest.raises(Unauthenticated):
        await tokens.learn("eyJ" + "x" * 20_000 + ".y.z")


@pytest.mark.parametrize(
    ("values", "role", "models"),
    [
        ({"admins"}, Role.ADMIN, ()),
        ({"shop"}, Role.INFER, ("flowers-*", "tulips")),
        ({"shop", "birds"}, Role.INFER, ("flowers-*", "tulips", "birds")),
        ({"shop", "everything"}, Role.INFER, ()),
        ({"shop", "ops"}, Role.OPERATOR, ("birds",)),
        ({"shop", "ops", "admins"}, Role.ADMIN, ()),
        (set(), None, ()),
    ],
)
def test_the_highest_role_counts_with_its_own_models(
    values: set[str], role: Role | None, models: tuple[str, ...]
) -> None:
    """Grants of one role add up; a lower one takes nothing from a higher one, and gives nothing."""
    lines = ["admins=admin", "shop=infer:flowers-*|tulips", "birds=infer:birds"]
    grants = read_grants([*lines, "everything=infer", "ops=operator:birds"])
    caller = caller_of(grants, "x", "x", frozenset(values))
    assert (caller.role, caller.models) == (role, models)


def test_lines_of_grants() -> None:
    """A value may hold an equals sign or a colon; what gives no role is refused."""
    assert read_grants(["cn=ml,ou=x=operator", "https://x/y=infer:a"]) == (
        Grant("cn=ml,ou=x", Role.OPERATOR),
        Grant("https://x/y", Role.INFER, ("a",)),
    )
    for line in ("admins", "=admin", "admins=root", "a=infer:b c", "admins="):
        with pytest.raises(ValueError, match=r"VALUE=ROLE|pattern"):
            read_grants([line])
    assert caller_of(read_grants(["*=infer"]), "x", "x", frozenset()).role is Role.INFER


def test_where_a_claim_lies() -> None:
    """A name to the letter, else a path; text, a list, or the words of a scope."""
    claims = {
        "groups": ["a", 7, "b"],
        "https://x.example/roles": "c d",
        "scope": "e f",
        "realm_access": {"roles": ["g"]},
        "number": 3,
    }
    assert values_of(claims, "groups") == {"a", "b"}
    assert values_of(claims, "https://x.example/roles") == {"c d"}
    assert values_of(claims, "scope") == {"e", "f"}
    assert values_of(claims, "realm_access.roles") == {"g"}
    for claim in ("number", "absent", "groups.x", "realm_access.roles.x"):
        assert values_of(claims, claim) == set()


def test_a_name_of_a_subject_cannot_break_a_line() -> None:
    """What an issuer calls somebody stands in the audit log, so it is short and printable."""
    caller = caller_of((), "x", "a\r\nb\x1b[31m" + "c" * 500, frozenset())
    assert caller.name == "subject ab[31m" + "c" * 122


def test_a_seal_is_for_one_purpose_and_one_time() -> None:
    """What was changed, is too old, was made for something else or by somebody else is nothing."""
    seals = Seals(b"s" * 32)
    sealed = seals.seal("session", {"subject": "ada"}, until_s=100.0)
    assert seals.open("session", sealed, 99.0) == {"subject": "ada", "until_s": 100.0}
    text, _, signature = sealed.partition(".")
    for purpose, shown, now_s in (
        ("session", sealed, 100.0),
        ("sign-in", sealed, 99.0),
        ("session", f"{text[:-2]}AA.{signature}", 99.0),
        ("session", f"{text}.{'0' * 64}", 99.0),
        ("session", text, 99.0),
        ("session", "", 99.0),
        ("session", "ä.ö", 99.0),
    ):
        assert seals.open(purpose, shown, now_s) is None
    assert Seals(b"t" * 32).open("session", sealed, 99.0) is None
