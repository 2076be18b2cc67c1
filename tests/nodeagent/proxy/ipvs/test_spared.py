"""Who is not tried again: what nft has refused stays refused until something is different."""

from __future__ import annotations

from nodeagent.proxy.ipvs.spared import RETRY, Spared


def test_who_is_refused_is_spared_until_he_asks_for_something_else() -> None:
    spared, asked = Spared(), {"default/bad": (1,), "default/web": (2,)}
    assert spared.among(asked.get, 0.0) == {}
    spared.note({"default/bad": "nft: no"}, asked.get, 0.0)
    for now in (1.0, 2.0):
        assert spared.among(asked.get, now) == {"default/bad": "nft: no"}
    asked["default/web"] = (3,)
    assert spared.among(asked.get, 3.0) == {"default/bad": "nft: no"}
    asked["default/bad"] = (4,)
    assert spared.among(asked.get, 4.0) == {}


def test_who_is_refused_is_tried_again_after_a_while_though_he_asks_for_the_same() -> None:
    spared, asked = Spared(), {"default/bad": (1,)}
    spared.note({"default/bad": "nft: no"}, asked.get, 10.0)
    assert spared.among(asked.get, 9.0 + RETRY) == {"default/bad": "nft: no"}
    assert spared.among(asked.get, 10.0 + RETRY) == {}
    spared.note({"default/bad": "nft: still no"}, asked.get, 10.0 + RETRY)
    assert spared.among(asked.get, 11.0 + RETRY) == {"default/bad": "nft: still no"}


def test_a_service_that_is_gone_is_forgotten() -> None:
    spared, asked = Spared(), {"default/bad": (1,)}
    spared.note({"default/bad": "nft: no"}, asked.get, 0.0)
    del asked["default/bad"]
    assert spared.among(asked.get, 1.0) == {}
    asked["default/bad"] = (1,)
    assert spared.among(asked.get, 2.0) == {}
