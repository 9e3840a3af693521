"""Which principals a revocation concerns. Pure."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from eventbus.backends.revocations import Revocation, RevocationKind
from webui_adapter.access.principal import Principal
from webui_adapter.access.revocations import Revocations, concerns

FOREVER = 10**15


def revocation(kind: RevocationKind, subject: str, before: int = -1, until: int = FOREVER, n: int = 1) -> Revocation:
    return Revocation(kind, subject, before, 0, until, "boss", "", n)


def test_tokens_of_a_user_that_were_issued_before() -> None:
    known = Revocations()
    known.add([revocation("user", "ann", 1000)], 0)
    ann = Principal("ann", issued=999.9)
    assert known.find(ann, 0) is not None
    assert known.find(replace(ann, issued=1000.0), 0) is None, "issued at that moment, or later"
    assert known.find(replace(ann, issued=None), 0) is not None, "it does not say when"
    assert known.find(replace(ann, user="bob"), 0) is None


def test_one_token() -> None:
    known = Revocations()
    known.add([revocation("token", "j-1")], 0)
    assert known.find(Principal("ann", token_id="j-1"), 0) is not None
    assert known.find(Principal("bob", token_id="j-1"), 0) is not None
    assert known.find(Principal("ann", token_id="j-2"), 0) is None
    assert known.find(Principal("j-1"), 0) is None


def test_ended_sessions_refuse_no_token() -> None:
    known, ended = Revocations(), revocation("sessions", "ann")
    known.add([ended], 0)
    assert known.find(Principal("ann"), 0) is None
    assert concerns(ended, Principal("ann"))
    assert not concerns(ended, Principal("bob"))
    assert len(known) == 0


def test_what_is_over_counts_no_more_and_takes_no_memory() -> None:
    known = Revocations()
    known.add([revocation("user", "ann", 1000, until=50), revocation("token", "j-1", until=60)], 0)
    ann = Principal("ann", issued=1.0, token_id="j-1")
    assert known.find(ann, 49) is not None
    assert known.find(ann, 55) is not None
    assert known.find(ann, 60) is None
    assert len(known) == 2
    known.add([], 60)
    assert len(known) == 0


subjects = st.sampled_from(["ann", "bob", "j-1", "j-2"])
kinds: st.SearchStrategy[RevocationKind] = st.sampled_from(["sessions", "user", "token"])
revocations = st.builds(revocation, kinds, subjects, st.integers(0, 20), st.integers(1, 20))
principals = st.builds(
    lambda user, issued, id_: Principal(user, issued=issued, token_id=id_),
    subjects,
    st.none() | st.integers(0, 20).map(float),
    st.none() | subjects,
)


@given(st.lists(revocations), principals, st.integers(0, 20))
def test_a_token_is_refused_exactly_if_the_latest_revocation_says_so(
    changes: list[Revocation], principal: Principal, now: int
) -> None:
    known = Revocations()
    for change in changes:
        known.add([change], 0)
    latest = {(change.kind, change.subject): change for change in changes}
    in_force = [change for change in latest.values() if change.until > now and change.kind != "sessions"]
    expected = any(concerns(change, principal) for change in in_force)
    assert (known.find(principal, now) is not None) == expected
