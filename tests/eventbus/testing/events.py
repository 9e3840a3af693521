"""Event classes of these tests."""

from eventbus import Event


class Indexed(Event, name="testing.indexed"):
    document: str
    words: int = 0


class State(Event, name="testing.state", keep="latest"):
    done: int


class Promise(Event, name="testing.promise", deliver="ack"):
    what: str


class Tagged(Event, name="testing.tagged"):
    """Its members have the names of an address."""

    user: str
    collection: str
    tags: list[str]
