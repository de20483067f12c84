"""The supervision policy, without a process, a port or a sleep."""

import logging
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpulse.master import policy
from gpulse.master.backoff import CEILING, Backoff
from gpulse.master.facts import CloseListeners, Order, Watch
from gpulse.scoreboard import Row
from tests.unit.master.fake_site import (
    DRAINING,
    READY,
    RETIRING,
    Site,
    exit_status,
    lines,
    sent,
    spawns,
    stages,
)

ERROR = logging.ERROR


class TestFirstBoot:
    def test_the_first_look_spawns_all_workers_in_the_lowest_slots(self):
        assert spawns(Site(3).watch()) == [0, 1, 2]

    def test_ready_is_announced_only_when_all_are_ready(self):
        site = Site(2)
        site.watch()
        assert stages(site.says(0, READY)) == []
        assert stages(site.says(1, READY)) == ["ready"]

    def test_ready_is_announced_once(self):
        site = Site(1).boot()
        assert stages(site.exits(0, -signal.SIGSEGV) + site.after(1)) == []
        assert stages(site.says(0, READY)) == []

    def test_a_crash_beside_a_survivor_delays_the_announcement_until_the_count_is_reached(self):
        site = Site(2)
        site.watch()
        site.says(0, READY)
        assert stages(site.exits(1, -signal.SIGSEGV)) == []
        assert spawns(site.after(1)) == [1]
        assert stages(site.says(1, READY)) == ["ready"]

    @pytest.mark.parametrize("status", [2, 4, 6, 7, 8])
    def test_a_lasting_fault_of_all_is_the_exit_status(self, status):
        site = Site(2)
        site.watch()
        assert exit_status(site.exits(0, status)) is None
        assert exit_status(site.exits(1, status)) == status

    @pytest.mark.parametrize("code", [1, 0, 99, -signal.SIGSEGV])
    def test_any_other_end_of_all_is_a_boot_error(self, code):
        site = Site(1)
        site.watch()
        assert exit_status(site.exits(0, code)) == 3

    def test_nothing_is_respawned_before_one_was_ready(self):
        site = Site(2)
        site.watch()
        site.exits(0, 1)
        assert spawns(site.after(40)) == []

    def test_one_fault_of_all_is_logged_once(self):
        site = Site(3)
        site.watch()
        said = [line for slot in range(3) for line in lines(site.exits(slot, 4, "no such app"))]
        assert [line for line in said if "no such app" in line] == [
            "worker 0 (pid 1001) could not start: no such app"
        ]

    def test_nothing_is_decided_after_the_exit(self):
        site = Site(1)
        site.watch()
        site.exits(0, 1)
        assert site.asks(Order.STOP) == []

    def test_a_failed_fork_of_all_is_a_boot_error(self):
        site = Site(2)
        site.can_fork = False
        actions = site.watch()
        assert exit_status(actions) == 3
        assert "Cannot allocate memory" in lines(actions, ERROR)[0]


class TestDeadlines:
    def test_a_hung_boot_is_aborted_then_killed(self):
        site = Site(2, boot_timeout=60)
        site.watch()
        site.says(0, READY)
        assert sent(site.after(60)) == []
        assert sent(site.after(1)) == [(1, "ABRT")]
        assert sent(site.after(1)) == []
        assert sent(site.after(1)) == [(1, "KILL")]
        assert sent(site.after(5)) == []

    def test_a_blocked_worker_is_aborted_and_respawned_at_once(self):
        site = Site(2, timeout=30).boot()
        site.after(20)
        site.ticking.discard(0)
        assert sent(site.after(30)) == []
        actions = site.after(1)
        assert sent(actions) == [(0, "ABRT")]
        assert "has been blocked for" in lines(actions, ERROR)[0]
        assert spawns(actions) == [2]  # its slot is still taken
        assert lines(site.exits(0, -signal.SIGABRT), ERROR) == []  # named once, when it was killed

    @pytest.mark.parametrize("state", [READY, RETIRING])
    def test_timeout_zero_never_kills(self, state):
        site = Site(1, timeout=0, boot_timeout=0).boot()
        site.says(0, state)
        site.ticking.discard(0)
        assert sent(site.after(1000)) == []

    def test_boot_timeout_zero_never_kills(self):
        site = Site(1, boot_timeout=0)
        site.watch()
        assert sent(site.after(1000)) == []

    def test_a_drain_beyond_its_time_is_killed(self):
        site = Site(1, graceful_timeout=30).boot()
        site.asks(Order.STOP)
        assert sent(site.after(31)) == []
        actions = site.after(1)
        assert sent(actions) == [(0, "KILL")]
        assert "is cut off" in lines(actions, logging.WARNING)[0]

    def test_a_worker_that_drains_by_itself_is_held_to_the_same_time(self):
        site = Site(1, graceful_timeout=5).boot()
        site.after(20)
        assert spawns(site.says(0, DRAINING)) == [1]
        assert sent(site.after(7)) == [(0, "KILL")]

    def test_a_draining_worker_need_not_tick(self):
        site = Site(2, timeout=5, graceful_timeout=30).boot()
        site.asks(Order.FEWER)
        site.ticking.discard(1)
        assert sent(site.after(20)) == []

    def test_a_master_that_was_stopped_itself_does_not_kill_its_workers(self):
        site = Site(1, timeout=30).boot()
        site.ticking.discard(0)
        site.now += 3600
        assert sent(site.watch()) == []
        assert sent(site.after(31)) == [(0, "ABRT")]

    @pytest.mark.parametrize("timeout", [1.0, 2.0, 4.0, 10.0, 30.0])
    def test_no_pause_of_any_length_kills_a_worker_that_paused_too(self, timeout):
        """A tick is at most half a second old when the pause begins."""
        for pause in range(1, int(timeout * 20)):
            site = Site(1, timeout=timeout).boot()
            site.ticking.discard(0)
            site.now += 0.4
            site.watch()
            site.now += pause / 10
            assert sent(site.watch()) == [], f"after {pause / 10} s"

    def test_a_row_that_still_shows_the_former_pid_says_nothing(self):
        site = Site(1)
        site.watch()
        site.feed(Watch(((0, Row(999, READY, site.now)),)))
        assert not site.state.served


class TestRespawn:
    def test_a_worker_that_had_been_serving_is_respawned_at_once(self):
        site = Site(2).boot()
        site.after(60)
        assert spawns(site.exits(0, -signal.SIGSEGV)) == [0]

    def test_an_early_death_waits_and_each_further_one_twice_as_long(self):
        site = Site(2).boot()
        waits = []
        for _ in range(10):
            assert spawns(site.exits(1, 1)) == []
            start = site.now
            while not spawns(site.watch()):
                site.now += 0.01
            waits.append(site.now - start)
        assert waits[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8], abs=0.02)
        assert waits[-1] == pytest.approx(CEILING, abs=0.02)

    def test_workers_of_one_batch_are_one_failure(self):
        site = Site(4).boot()
        site.now += 1
        for slot in range(4):
            site.exits(slot, -signal.SIGKILL)
        assert site.state.backoff.failures == 1
        assert spawns(site.after(1)) == [0, 1, 2, 3]

    def test_the_backoff_ends_when_all_have_been_ready_for_a_while(self):
        site = Site(2).boot()
        site.exits(0, 1)
        site.after(1)
        site.says(0, READY)
        assert site.state.backoff.failures == 1
        site.after(11)
        assert site.state.backoff == Backoff()

    def test_when_all_die_after_having_served_it_goes_on_trying(self):
        site = Site(1).boot()
        for _ in range(20):
            assert exit_status(site.exits(0, 4, "no such app")) is None
            site.after(31)
            assert site.slots == [0]

    def test_a_repeated_report_is_logged_once(self):
        site = Site(2).boot()
        site.exits(1, -signal.SIGSEGV)
        site.after(1)
        said = []
        for _ in range(5):
            said += lines(site.exits(1, 4, "no such app"), ERROR)
            site.after(31)
        assert len([line for line in said if "no such app" in line]) == 1

    def test_a_failed_fork_waits_and_tries_again(self):
        site = Site(2).boot()
        site.after(20)
        site.can_fork = False
        assert lines(site.exits(0, -signal.SIGSEGV), ERROR)
        assert lines(site.after(5), ERROR) == []  # one line, not one per attempt
        site.can_fork = True
        assert spawns(site.after(31)) == [0]

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            (-signal.SIGSEGV, "was killed by SIGSEGV after 20.0 s"),
            (-signal.SIGKILL, "perhaps the kernel's OOM killer"),
            (3, "exited with status 3 after 20.0 s"),
            (0, "exited with status 0 after 20.0 s without being asked"),
            (-63, "was killed by signal 63"),
        ],
    )
    def test_the_log_says_who_died_of_what(self, code, words):
        site = Site(2).boot()
        site.after(20)
        (line,) = lines(site.exits(1, code), ERROR)
        assert line.startswith("worker 1 (pid 1002) ")
        assert words in line


class TestRetirement:
    def test_the_replacement_is_ready_before_the_old_one_is_told(self):
        site = Site(2).boot()
        actions = site.says(0, RETIRING)
        assert (spawns(actions), sent(actions)) == ([2], [])
        assert sent(site.after(5)) == []
        assert sent(site.says(2, READY)) == [(0, "TERM")]
        site.exits(0)
        assert site.slots == [1, 2]

    def test_a_replacement_that_dies_leaves_the_old_one_serving(self):
        site = Site(1).boot()
        site.says(0, RETIRING)
        actions = site.exits(1, 4, "no such app")
        assert sent(actions) == []
        assert spawns(site.after(1)) == [1]

    def test_few_replacements_at_once(self):
        site = Site(12).boot()
        for slot in range(12):
            site.says(slot, RETIRING)
        assert len(site.slots) == 12 + policy.SPARE
        told = sent(site.says(12, READY))
        assert told == [(0, "TERM")]
        assert len([w for w in site.state.workers if w.is_staying]) == 12 + policy.SPARE

    def test_all_are_replaced_in_the_end(self):
        site = Site(9).boot()
        for slot in range(9):
            site.says(slot, RETIRING)
        run_until_settled(site)
        assert len(site.slots) == 9
        assert all(worker.seen is READY for worker in site.state.workers)

    def test_the_replacement_that_dies_early_is_no_reason_to_forget_the_count(self):
        site = Site(2).boot()
        site.says(0, RETIRING)
        site.exits(1, -signal.SIGSEGV)
        run_until_settled(site)
        assert len(site.slots) == 2


class TestReload:
    def test_one_new_worker_first(self):
        site = Site(3).boot()
        actions = site.asks(Order.RELOAD)
        assert (spawns(actions), sent(actions)) == ([3], [])
        assert stages(actions) == ["reloading"]
        assert site.worker(3).generation == 2

    def test_when_the_canary_is_ready_one_old_is_told_and_the_rest_is_spawned(self):
        site = Site(3).boot()
        site.asks(Order.RELOAD)
        actions = site.says(3, READY)
        assert sent(actions) == [(0, "TERM")]
        assert spawns(actions) == [4, 5]

    def test_never_fewer_than_the_target_serve(self):
        site = Site(5).boot()
        site.asks(Order.RELOAD)
        for _ in range(50):
            step(site)
            assert sum(worker.is_serving for worker in site.state.workers) >= 5

    def test_the_end_is_announced_and_all_are_new(self):
        site = Site(5).boot()
        actions = site.asks(Order.RELOAD)
        actions += run_until_settled(site)
        assert stages(actions) == ["reloading", "ready"]
        assert {worker.generation for worker in site.state.workers} == {2}
        assert "reloaded: generation 2 serves" in lines(actions)

    def test_the_end_is_not_announced_while_old_code_may_still_answer(self):
        """Whoever waits for READY, as systemctl reload does, is to meet the new code."""
        site = Site(1).boot()
        site.asks(Order.RELOAD)
        actions = site.says(1, READY)
        assert sent(actions) == [(0, "TERM")]
        assert stages(actions + site.after(1)) == []
        assert stages(site.says(0, DRAINING)) == ["ready"]

    def test_a_canary_that_dies_abandons_the_reload_in_one_line(self):
        site = Site(2).boot()
        site.asks(Order.RELOAD)
        actions = site.exits(2, 4, "mysite/views.py line 3: invalid syntax")
        assert lines(actions, logging.WARNING) == [
            "reload abandoned, 2 workers with the old code go on serving: worker 2 (pid 1003) "
            "could not start: mysite/views.py line 3: invalid syntax; mend it and send HUP again"
        ]
        assert (sent(actions), spawns(actions), stages(actions)) == ([], [], ["ready"])
        assert sent(site.after(100)) == []
        assert site.slots == [0, 1]

    def test_a_canary_that_hangs_abandons_the_reload(self):
        site = Site(2, boot_timeout=10).boot()
        site.asks(Order.RELOAD)
        actions = site.after(11)
        assert sent(actions) == [(2, "ABRT")]
        assert spawns(actions) == []
        assert "reload abandoned" in lines(actions, ERROR)[-1]
        assert site.state.generation == 1

    def test_a_canary_that_cannot_be_forked_abandons_the_reload(self):
        site = Site(2).boot()
        site.can_fork = False
        actions = site.asks(Order.RELOAD)
        assert "reload abandoned" in lines(actions, ERROR)[-1]

    def test_after_an_abandoned_reload_another_one_works_and_has_a_number_of_its_own(self):
        site = Site(2).boot()
        site.asks(Order.RELOAD)
        site.exits(2, 4, "broken")
        site.asks(Order.RELOAD)
        run_until_settled(site)
        assert {worker.generation for worker in site.state.workers} == {3}

    def test_an_old_worker_that_dies_is_not_respawned_before_the_canary_is_decided(self):
        site = Site(3).boot()
        site.after(20)
        site.asks(Order.RELOAD)
        assert spawns(site.exits(0, -signal.SIGSEGV)) == []
        actions = site.says(3, READY)
        assert spawns(actions) == [0, 4]
        assert sent(actions) == []  # three serve: none is one too many

    def test_after_an_abandoned_reload_the_dead_are_respawned(self):
        site = Site(3).boot()
        site.after(20)
        site.asks(Order.RELOAD)
        site.exits(0, -signal.SIGSEGV)
        site.exits(3, 4, "broken")
        assert 0 in spawns(site.after(1))

    def test_hup_during_the_canary_starts_a_newer_one(self):
        site = Site(2).boot()
        site.asks(Order.RELOAD)
        actions = site.asks(Order.RELOAD)
        assert sent(actions) == [(2, "TERM")]
        assert spawns(actions) == [3]
        site.exits(2, -signal.SIGTERM)
        assert lines(site.exits(3, 4, "broken"), ERROR)
        assert site.state.generation == 1

    def test_hup_while_the_rest_is_replaced_falls_back_on_whoever_serves(self):
        site = Site(4).boot()
        site.asks(Order.RELOAD)
        site.says(4, READY)  # 0 is told, 5 6 7 boot
        actions = site.asks(Order.RELOAD)
        assert sent(actions) == [(5, "TERM"), (6, "TERM"), (7, "TERM")]
        (canary,) = spawns(actions)
        for slot in (0, 5, 6, 7):
            site.exits(slot)
        site.exits(canary, 4, "broken")
        assert (spawns(site.after(100)), site.slots) == ([], [1, 2, 3, 4])

    def test_hup_where_nobody_serves_tries_all_at_once(self):
        site = Site(3).boot()
        for slot in range(3):
            site.exits(slot, 1)
        assert spawns(site.asks(Order.RELOAD)) == [0, 1, 2]

    def test_hup_during_the_first_boot_waits_for_the_first_ready_one(self):
        site = Site(2)
        site.watch()
        assert spawns(site.asks(Order.RELOAD)) == []
        actions = site.says(0, READY)
        assert sent(actions) == [(1, "TERM")]  # it may have imported the old code
        assert spawns(actions) == [2]

    def test_repeated_reloads_do_not_pile_up_workers_that_drain_slowly(self):
        site = Site(2, graceful_timeout=1000).boot()
        for _ in range(20):
            site.asks(Order.RELOAD)
            for worker in site.state.workers:
                if worker.is_booting:
                    site.says(worker.slot, READY)
            site.after(1)
        assert len(site.slots) <= 2 * 2 + policy.SPARE


class TestStop:
    def test_term_drains_and_exits_with_zero(self):
        site = Site(2).boot()
        actions = site.asks(Order.STOP)
        assert sent(actions) == [(0, "TERM"), (1, "TERM")]
        assert stages(actions) == ["stopping"]
        assert CloseListeners() in actions
        assert exit_status(site.exits(0)) is None
        assert exit_status(site.exits(1)) == 0

    def test_nothing_is_respawned_during_a_stop(self):
        site = Site(2).boot()
        site.after(20)
        site.asks(Order.STOP)
        assert spawns(site.exits(0, -signal.SIGSEGV) + site.after(5)) == []

    @pytest.mark.parametrize("second", [Order.STOP, Order.QUICK_STOP])
    def test_a_second_signal_makes_it_quick(self, second):
        site = Site(2).boot()
        site.asks(Order.STOP)
        assert sent(site.asks(second)) == [(0, "INT"), (1, "INT")]
        assert sent(site.after(3)) == [(0, "KILL"), (1, "KILL")]
        site.exits(0, -signal.SIGKILL)
        assert exit_status(site.exits(1, -signal.SIGKILL)) == 0

    def test_a_quick_stop_is_told_once(self):
        site = Site(1).boot()
        assert sent(site.asks(Order.QUICK_STOP)) == [(0, "INT")]
        assert sent(site.asks(Order.QUICK_STOP)) == []

    @pytest.mark.parametrize("order", [Order.STOP, Order.QUICK_STOP])
    def test_a_stop_during_the_first_boot_exits_with_zero(self, order):
        site = Site(1)
        site.watch()
        assert sent(site.asks(order))
        assert exit_status(site.exits(0, -signal.SIGTERM)) == 0

    def test_a_stop_before_the_first_spawn_exits_with_zero(self):
        assert exit_status(Site(1).asks(Order.STOP)) == 0

    @pytest.mark.parametrize("order", [Order.RELOAD, Order.MORE, Order.FEWER])
    def test_other_orders_are_ignored_during_a_stop(self, order):
        site = Site(2).boot()
        site.asks(Order.STOP)
        actions = site.asks(order)
        assert (sent(actions), spawns(actions), site.state.target) == ([], [], 2)
        assert "is ignored" in lines(actions)[0]

    def test_a_stop_during_a_reload_takes_old_and_new(self):
        site = Site(2).boot()
        site.asks(Order.RELOAD)
        assert sent(site.asks(Order.STOP)) == [(0, "TERM"), (1, "TERM"), (2, "TERM")]


class TestCount:
    def test_ttin_spawns_one_more(self):
        site = Site(1).boot()
        assert spawns(site.asks(Order.MORE)) == [1]

    def test_ttou_drains_the_youngest(self):
        site = Site(2).boot()
        site.after(20)
        site.exits(0, -signal.SIGSEGV)
        site.after(1)
        site.says(0, READY)
        assert sent(site.asks(Order.FEWER)) == [(0, "TERM")]

    def test_ttou_stops_at_one(self):
        site = Site(1).boot()
        actions = site.asks(Order.FEWER)
        assert sent(actions) == []
        assert lines(actions, logging.WARNING)

    def test_ttin_stops_at_half_the_slots(self):
        site = Site(4, slots=8).boot()
        assert spawns(site.asks(Order.MORE)) == []

    def test_ttou_during_a_reload_drains_an_old_one(self):
        site = Site(3).boot()
        site.asks(Order.RELOAD)
        assert sent(site.asks(Order.FEWER)) == [(0, "TERM")]

    def test_ttou_while_a_replacement_boots_takes_the_replacement(self):
        site = Site(2).boot()
        site.says(0, RETIRING)
        assert sent(site.asks(Order.FEWER)) == [(2, "TERM"), (0, "TERM")]


class TestReopen:
    def test_usr1_is_passed_on(self):
        site = Site(2).boot()
        assert sent(site.asks(Order.REOPEN)) == [(0, "USR1"), (1, "USR1")]

    def test_a_booting_worker_gets_it_when_it_is_ready(self):
        site = Site(1)
        site.watch()
        assert sent(site.asks(Order.REOPEN)) == []
        assert sent(site.says(0, READY)) == [(0, "USR1")]
        assert sent(site.says(0, READY)) == []


class TestAttention:
    def test_a_settled_site_is_looked_at_once_a_second(self):
        assert policy.attention(Site(2).boot().state) == 1.0

    def test_a_short_timeout_is_looked_at_more_often(self):
        assert policy.attention(Site(2, timeout=1.0).boot().state) == 0.25

    def test_a_booting_one_more_often(self):
        site = Site(2)
        site.watch()
        assert policy.attention(site.state) < 0.5


HAPPENINGS = st.lists(
    st.one_of(
        st.sampled_from(list(Order)),
        st.tuples(st.sampled_from(["ready", "retire", "drain", "hang"]), st.integers(0, 15)),
        st.tuples(st.just("exit"), st.integers(0, 15), st.sampled_from([0, 1, 4, -9, -15])),
        st.floats(0.01, 40),
    ),
    max_size=60,
)


@given(HAPPENINGS)
def test_whatever_happens_slots_are_unique_and_a_stop_ends(happenings):
    site = Site(3, slots=32)
    site.watch()
    for happening in happenings:
        happen(site, happening)
        assert len(set(site.slots)) == len(site.slots)
        assert len([w for w in site.state.workers if w.is_staying]) <= 16 + policy.SPARE + 16
    site.asks(Order.QUICK_STOP)
    site.after(10)
    for slot in list(site.slots):
        assert site.worker(slot).killed or site.worker(slot).aborted_at is not None
        site.exits(slot, -signal.SIGKILL)
    assert site.state.exiting


def happen(site, happening):
    if isinstance(happening, Order):
        site.asks(happening)
    elif isinstance(happening, float):
        site.after(happening)
    elif happening[1] in site.rows:
        what, slot = happening[0], happening[1]
        if what == "exit":
            site.exits(slot, happening[2])
        elif what == "hang":
            site.ticking.discard(slot)
        else:
            site.says(slot, {"ready": READY, "retire": RETIRING, "drain": DRAINING}[what])


def step(site):
    """Whoever boots becomes ready, whoever leaves exits, a second passes."""
    actions = []
    for worker in site.state.workers:
        if worker.is_booting:
            actions += site.says(worker.slot, READY)
        elif not worker.is_staying:
            actions += site.exits(worker.slot)
    return actions + site.after(1)


def run_until_settled(site):
    actions = []
    for _ in range(200):
        actions += step(site)
        if policy.attention(site.state) == 1.0:
            return actions
    raise AssertionError(f"not settled: {site.state}")
