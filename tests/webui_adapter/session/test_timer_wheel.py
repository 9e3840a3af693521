"""The timer wheel against a model."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from webui_adapter.session.timer_wheel import TimerWheel


class WheelMachine(RuleBasedStateMachine):
    """Never early, never lost, never twice, and not much later than a tick."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.wheel: TimerWheel[int] = TimerWheel(self.now, 0.25)
        self.due: dict[int, float] = {}

    @rule(item=st.integers(0, 9), after=st.floats(-2, 30) | st.sampled_from([0.01, 0.3, 0.45, 0.5, 1.2]))
    def put(self, item: int, after: float) -> None:
        self.wheel.put(item, self.now + after)
        self.due[item] = self.now + max(after, 0.0)  # a moment that has passed is the next tick

    @rule(item=st.integers(0, 9))
    def remove(self, item: int) -> None:
        self.wheel.remove(item)
        self.due.pop(item, None)

    @rule(step=st.floats(0, 10) | st.sampled_from([0.01, 0.1, 0.25, 0.26, 0.3]))
    def turn(self, step: float) -> None:
        self.now += step
        items = self.wheel.due(self.now)
        assert len(items) == len(set(items))
        for item in items:
            assert self.due.pop(item) <= self.now, "early"
        assert all(due > self.now - 0.51 for due in self.due.values()), "late"

    @invariant()
    def no_entry_is_kept_without_a_session(self) -> None:
        assert set(self.wheel._where) == set(self.due)
        assert sum(map(len, self.wheel._spokes.values())) == len(self.due)
        assert len(self.wheel._spokes) <= 10 + 32 / 0.25


TestWheel = WheelMachine.TestCase
