"""Who has what two services must not have both, where the kernel does not let everybody have what he wants."""

from __future__ import annotations

from nodeagent.proxy.shares import Shares

Part = tuple[str, ...]


def held(**parts: str) -> Shares[Part, str]:
    """Services have these, one letter each."""
    shares = Shares[Part, str](lambda part: part, str.upper)
    shares.anew({service: tuple(letters) for service, letters in parts.items()})
    return shares


def exchanged(shares: Shares[Part, str], stuck: tuple[str, ...] = (), **asked: str) -> dict[str, str]:
    """Let services have letters in place of others, `old>new`; who is refused, and what is said."""
    both = {service: (tuple(text.split(">")[0]), tuple(text.split(">")[1])) for service, text in asked.items()}
    return shares.exchange(both, dict.fromkeys(stuck, "stuck"))


def test_what_one_has_another_is_refused_whole_until_it_is_free() -> None:
    shares = held(web="ab")
    assert exchanged(shares, other=">bc") == {"other": "B is already that of web"}
    assert exchanged(shares, third=">c") == {}
    assert exchanged(shares, web="ab>") == {}
    assert exchanged(shares, other=">ab") == {}


def test_what_one_gives_up_another_may_take_at_once_whatever_their_names() -> None:
    shares = held(web="a")
    assert exchanged(shares, heir=">a", web="a>b") == {}
    assert exchanged(shares, late=">a", later=">b") == {
        "late": "A is already that of heir",
        "later": "B is already that of web",
    }


def test_of_two_who_want_the_same_the_first_has_it() -> None:
    assert exchanged(held(), one=">a", another=">a") == {"another": "A is already that of one"}


def test_who_is_refused_keeps_what_he_had_whoever_asked_for_it_before_him() -> None:
    shares = held(web="a", z="b")
    assert exchanged(shares, heir=">a", web="a>b") == {
        "web": "B is already that of z",
        "heir": "A is already that of web",
    }
    assert exchanged(shares, late=">a") == {"late": "A is already that of web"}


def test_who_cannot_have_his_for_another_reason_keeps_what_he_had_too() -> None:
    shares = held(web="a")
    assert exchanged(shares, stuck=("web",), heir=">a", web="a>") == {
        "web": "stuck",
        "heir": "A is already that of web",
    }
