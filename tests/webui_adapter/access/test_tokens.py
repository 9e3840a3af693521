"""Tokens: which open the door, which do not, and where a request may carry one."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from tests.webui_adapter.gateways import SECRET, token
from webui_adapter.access.tokens import MAX_TOKEN, TokenChecker, token_of
from webui_adapter.errors import NotConfigured, TokenRefused
from webui_adapter.settings import GatewaySettings

OTHER = "another secret, that is long enough as well"


def checker(**given_: Any) -> TokenChecker:
    return TokenChecker(GatewaySettings(**{"jwt_secret": SECRET, **given_}))


def refused(token_: object, **given_: Any) -> TokenRefused:
    with pytest.raises(TokenRefused) as caught:
        checker(**given_).check(token_)
    assert len(str(token_)) < 16 or str(token_) not in str(caught.value), "a reason holds nothing of the token"
    return caught.value


def claims(**given_: Any) -> dict[str, Any]:
    return {"sub": "ann", "exp": int(time.time()) + 60, **given_}


def signed(header: dict[str, Any] | None = None, key: str = SECRET, **given_: Any) -> str:
    return jwt.encode(claims(**given_), key, "HS256", headers=header)


def test_a_good_token_says_who_until_when_and_what() -> None:
    principal = checker().check(signed(collections=["7", 8], role="admin"))
    assert principal.user == "ann"
    assert abs(principal.expires - time.time() - 60) < 2
    assert principal.collections == {"7", "8"}
    assert principal.claims["role"] == "admin"
    assert checker().check(signed(collections="7")).collections == frozenset()


@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_a_token_that_is_not_valid_yet_is_replaced_like_an_expired_one(claim: str) -> None:
    assert checker().check(signed(**{claim: int(time.time()) + 2})).user == "ann", "clocks differ a little"
    assert refused(signed(**{claim: int(time.time()) + 60})).expired


def test_an_integer_names_the_user_by_its_text() -> None:
    assert checker().check(signed(sub=42)).user == "42"
    assert checker(jwt_user_claim="uid").check(signed(uid=42)).user == "42"


@pytest.mark.parametrize("sub", [True, 1.5, -1, ["42"], "", "a b", "ü"])
def test_a_claim_that_cannot_name_a_user(sub: object) -> None:
    assert "sub" in str(refused(signed(sub=sub)))


@pytest.mark.parametrize("nothing", [None, "", b"x.y.z", 7, "x" * (MAX_TOKEN + 1)])
def test_no_token(nothing: object) -> None:
    assert not refused(nothing).expired


@pytest.mark.parametrize(
    "text", ["x", "a.b", "a.b.c", "....", "ä.ö.ü", "eyJhbGciOiJIUzI1NiJ9..", "\ud800.a.b", "a.b.c.d.e"]
)
def test_what_is_no_token_at_all(text: str) -> None:
    refused(text)


@pytest.mark.parametrize("exp", [1e308, 10**400, 2**53], ids=["float", "whole", "milliseconds"])
def test_an_end_that_no_clock_knows(exp: float) -> None:
    assert "exp" in str(refused(signed(exp=exp)))
    assert checker().check(signed(exp=int(time.time() * 1000))).user == "ann", "milliseconds are a usual slip"


def test_a_token_that_is_too_long_is_not_even_looked_at() -> None:
    assert checker().check(signed(pad="x" * 4000)).user == "ann"
    refused(signed(pad="x" * 8000))


def test_another_key() -> None:
    assert "InvalidSignature" in str(refused(signed(key=OTHER)))


def test_the_algorithm_is_ours_not_the_tokens() -> None:
    refused(jwt.encode(claims(), SECRET + SECRET, "HS512"))
    head = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps(claims()).encode()).rstrip(b"=")
    for signature in (b"", b"e30"):
        refused((head + b"." + body + b"." + signature).decode())


def test_expiry_is_required_and_kept() -> None:
    refused(jwt.encode({"sub": "ann"}, SECRET, "HS256"))
    assert refused(signed(exp=int(time.time()) - 1)).expired
    assert checker(jwt_leeway=30).check(signed(exp=int(time.time()) - 10)).user == "ann"
    assert refused(signed(exp=int(time.time()) - 60), jwt_leeway=30).expired


@pytest.mark.parametrize("exp", ["soon", None, [], {}, "1e400"])
def test_an_expiry_that_is_no_number(exp: object) -> None:
    refused(signed(exp=exp))


def test_an_expiry_as_text_or_beyond_all_bounds() -> None:
    later = int(time.time()) + 60
    assert checker().check(signed(exp=str(later))).expires == later
    refused(_with_raw_claim("exp", "1e999"))
    refused(_with_raw_claim("exp", "NaN"))


def _with_raw_claim(name: str, value: str) -> str:
    """Signed by us, with a claim that no encoder of ours writes."""
    text = json.dumps(claims(**{name: "@"})).replace('"@"', value)
    return jwt.api_jws.encode(text.encode(), SECRET, "HS256")


def test_issuer_and_audience_are_pinned_where_set() -> None:
    good = {"iss": "https://id.example", "aud": "bus"}
    pinned = {"jwt_issuer": "https://id.example", "jwt_audience": "bus"}
    assert checker(**pinned).check(signed(**good)).user == "ann"
    refused(signed(**{**good, "iss": "https://evil.example"}), **pinned)
    refused(signed(**{**good, "aud": "shop"}), **pinned)
    refused(signed(iss=good["iss"]), **pinned)
    refused(signed(aud=good["aud"]), **pinned)
    assert checker().check(signed(**good)).user == "ann"


@pytest.mark.parametrize("user", ["", "a b", "a:b", "*", "a*", "a,b=1", "{a}", "-a", "x" * 129, None, ["ann"], "a\n"])
def test_a_user_that_could_not_name_a_channel(user: object) -> None:
    refused(signed(sub=user))
    refused(signed(uid=user), jwt_user_claim="uid")


def test_the_user_may_be_in_another_claim() -> None:
    assert checker(jwt_user_claim="uid").check(signed(uid="bob")).user == "bob"
    refused(signed(), jwt_user_claim="uid")


def test_keys_that_a_token_brings_along_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    private = rsa.generate_private_key(65537, 2048)
    jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key()))

    def no_fetch(*_: object, **__: object) -> None:
        raise AssertionError("a key was fetched")

    monkeypatch.setattr("urllib.request.urlopen", no_fetch)
    for header in (
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/c"},
        {"jwk": jwk},
        {"kid": "../x"},
    ):
        refused(jwt.encode(claims(), private, "RS256", headers=header))
        refused(signed(header, key=OTHER))
        assert checker().check(signed(header)).user == "ann"


def _pem(public: Any) -> bytes:
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _private_key(algorithm: str, bits: int = 2048, curve: ec.EllipticCurve | None = None) -> Any:
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm.startswith("ES"):
        return ec.generate_private_key(curve or ec.SECP256R1())
    return rsa.generate_private_key(65537, bits)


def _private_pem(private: Any) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return private.private_bytes(encoding, form, serialization.NoEncryption())


@pytest.mark.parametrize(
    ("algorithm", "pem", "reason"),
    [
        ("RS256", lambda: _private_pem(_private_key("RS256")), "private"),
        ("ES256", lambda: _private_pem(_private_key("ES256")), "private"),
        ("EdDSA", lambda: _private_pem(_private_key("EdDSA")), "private"),
        ("RS256", lambda: _pem(_private_key("RS256", 1024).public_key()), "1024 bits"),
        ("ES256", lambda: _pem(_private_key("ES256", curve=ec.SECP384R1()).public_key()), "secp384r1"),
        ("RS256", lambda: _pem(_private_key("ES256").public_key()), "WEBUI_JWT_KEY_FILE"),
        ("EdDSA", lambda: b"no key", "WEBUI_JWT_KEY_FILE"),
    ],
    ids=["private RSA", "private EC", "private Ed25519", "short", "other curve", "other kind", "no key"],
)
def test_a_key_that_could_not_check_a_token_is_refused_at_the_start(
    algorithm: str, pem: Callable[[], bytes], reason: str, tmp_path: Path
) -> None:
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(pem())
    with pytest.raises(NotConfigured, match=reason):
        checker(jwt_secret=None, jwt_algorithm=algorithm, jwt_key_file=key_file)


@pytest.mark.parametrize(("algorithm", "least"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_shorter_than_the_hash_is_refused_at_the_start(algorithm: str, least: int) -> None:
    """RFC 7518, section 3.2."""
    secret = "é" + "s" * (least - 3)  # one byte too short; é has two
    with pytest.raises(NotConfigured, match=rf"WEBUI_JWT_SECRET \({least} bytes or more\) for {algorithm}"):
        checker(jwt_algorithm=algorithm, jwt_secret=secret)
    long_enough = secret + "s"
    token = jwt.encode(claims(), long_enough, algorithm)
    assert checker(jwt_algorithm=algorithm, jwt_secret=long_enough).check(token).user == "ann"


def test_a_token_of_another_purpose_is_refused() -> None:
    typed = {"jwt_type": "at+jwt"}
    for good in ("at+jwt", "AT+JWT", "application/at+jwt"):
        assert checker(**typed).check(signed({"typ": good})).user == "ann"
    for bad in ("JWT", "logout+jwt", "dpop+jwt"):
        refused(signed({"typ": bad}), **typed)
    access = {"jwt_claims": {"type": "access"}}
    assert checker(**access).check(signed(type="access")).user == "ann"
    for other in ({"type": "refresh"}, {"type": ["access"]}, {}):
        refused(signed(**other), **access)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_a_key_file(algorithm: str, tmp_path: Path) -> None:
    private = _private_key(algorithm)
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(_pem(private.public_key()))
    pinned = {"jwt_secret": None, "jwt_algorithm": algorithm, "jwt_key_file": key_file}
    assert checker(**pinned).check(jwt.encode(claims(), private, algorithm)).user == "ann"
    # The public key as a secret: what makes "whatever the token says" an open door.
    head = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps(claims()).encode()).rstrip(b"=")
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
        head + b"." + body, key_file.read_bytes()
    )
    forged = head + b"." + body + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")
    refused(forged.decode(), **pinned)
    refused(signed(), **pinned)


def test_tokens_need_a_key_that_fits() -> None:
    for wrong in ({"jwt_secret": None}, {"jwt_secret": "short"}, {"jwt_secret": None, "jwt_algorithm": "RS256"}):
        with pytest.raises(NotConfigured, match="WEBUI_JWT"):
            checker(**wrong)
    with pytest.raises(NotConfigured, match="no-such"):
        checker(jwt_algorithm="ES256", jwt_key_file="/no-such-file")


@given(st.text())
def test_whatever_comes_is_refused_not_crashed_on(text: str) -> None:
    refused(text)


# --- carriers ----------------------------------------------------------------------------------------------------


def test_carriers_in_their_order() -> None:
    header = {"authorization": "Bearer from-header"}
    cookies = {"access_token": "from-cookie"}
    protocols = ["eventbus.v1", "access_token.from-protocol"]

    def found(*given_: Any) -> tuple[str, str] | None:
        presented = token_of(*given_)
        return None if presented is None else (presented.carrier, presented.token)

    assert found(header, protocols, cookies, "access_token") == ("subprotocol", "from-protocol")
    assert found(header, ["eventbus.v1"], cookies, "access_token") == ("header", "from-header")
    assert found({}, [], cookies, "access_token") == ("cookie", "from-cookie")
    assert found({}, [], cookies, "") is None
    assert found({}, [], {"session": "x"}, "access_token") is None
    assert found({"authorization": "Basic abc"}, [], {}, "access_token") is None
    assert found({"authorization": "bearer  x "}, [], {}, "access_token") == ("header", "x")


def test_helper_makes_good_tokens() -> None:
    assert checker().check(token("bob")).user == "bob"
