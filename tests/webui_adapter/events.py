"""Event classes of these tests: one for each way an event can be kept, and for each lane."""

from __future__ import annotations

from datetime import timedelta

from eventbus.events.event import Event


class Note(Event, name="gw.note"):
    n: int
    pad: str = ""


class Alarm(Event, name="gw.alarm", lane="high"):
    n: int


class Crumb(Event, name="gw.crumb", lane="low"):
    n: int
    pad: str = ""


class Progress(Event, name="gw.progress", lane="low", keep="latest", key="part"):
    done: int
    part: str = "all"


class Blip(Event, name="gw.blip", keep="nothing"):
    n: int
    pad: str = ""


class Brief(Event, name="gw.brief", ttl=timedelta(seconds=1)):
    n: int


class Promise(Event, name="gw.promise", deliver="ack"):
    n: int
    pad: str = ""


class Summons(Event, name="gw.summons", lane="high", deliver="ack"):
    n: int


class Errand(Event, name="gw.errand", lane="low", deliver="ack"):
    n: int
