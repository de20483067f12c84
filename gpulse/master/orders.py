"""What the policy does when it is asked: stop, reload, change the count, reopen logs.  Pure.

Each order changes the facts of the turn; what follows from them is ``policy``'s convergence.
"""

import logging
from collections.abc import Callable
from signal import Signals

from gpulse.master.backoff import Backoff
from gpulse.master.facts import CloseListeners, Notify, Order, Stage, Stop
from gpulse.master.turn import Turn, plural


def obey(turn: Turn, order: Order) -> None:
    """Carry out one order; during a stop only what concerns the stop is still obeyed."""
    if turn.state.stop is not None and order not in _ORDERS_DURING_STOP:
        turn.log(logging.INFO, f"already stopping: {order.value} is ignored")
        return
    _ORDERS[order](turn)


def _stop(turn: Turn) -> None:
    if turn.state.stop is not None:
        _quick_stop(turn)
        return
    turn.log(
        logging.INFO,
        f"stopping: workers may finish what they have within "
        f"{turn.state.limits.graceful_timeout:g} s",
    )
    _begin_stop(turn, Stop(quick=False, since=turn.now))
    for worker in turn.state.workers:
        if worker.is_staying:
            turn.tell_to_go(worker)


def _quick_stop(turn: Turn) -> None:
    if turn.state.stop is not None and turn.state.stop.quick:
        return
    turn.log(logging.INFO, "stopping at once")
    _begin_stop(turn, Stop(quick=True, since=turn.now))
    for worker in turn.state.workers:
        if worker.aborted_at is None and not worker.killed:
            turn.tell_to_go(worker, Signals.SIGINT)


def _begin_stop(turn: Turn, stop: Stop) -> None:
    if turn.state.stop is None:
        turn.actions.append(Notify(Stage.STOPPING, "stopping"))
        turn.actions.append(CloseListeners())
    turn.change(stop=stop, status="stopping")


def reload(turn: Turn) -> None:
    """Begin a new generation, with a canary where there is somebody to fall back on."""
    state = turn.state
    if not state.served:
        turn.log(logging.INFO, "reload: waiting for the first worker to become ready")
        turn.change(reload_wanted=True)
        return
    serving = {worker.generation for worker in turn.serving()}
    # A canary still undecided is superseded; its fallback stays what it was.
    fallback = state.fallback if state.fallback is not None else state.generation
    newest = state.newest + 1
    turn.log(logging.INFO, f"reloading: generation {newest}")
    turn.actions.append(Notify(Stage.RELOADING, "reloading"))
    turn.change(
        newest=newest,
        generation=newest,
        fallback=fallback if serving else None,
        reloading=True,
        reload_wanted=False,
        backoff=Backoff(),
        logged=(),
        status="reloading",
    )


def abandon_reload(turn: Turn, why: str) -> None:
    """The canary failed for the reason ``why``: back to the generation that serves."""
    serving = len(turn.serving())
    turn.log(
        logging.ERROR,
        f"reload abandoned, {serving} {plural('worker', serving)} with the old code "
        f"{'goes' if serving == 1 else 'go'} on serving: {why}; mend it and send HUP again",
    )
    status = turn.status_line()
    fallback = turn.state.fallback
    for worker in turn.serving():
        # Where this reload interrupted another one: whoever serves now has proved itself and is
        # not to be replaced by what is on disk.
        turn.change_worker(worker, generation=fallback)
    turn.change(generation=fallback, fallback=None, reloading=False, status=status)
    turn.actions.append(Notify(Stage.READY, f"{status}; the last reload was abandoned"))


def _more(turn: Turn) -> None:
    _retarget(turn, turn.state.target + 1)


def _fewer(turn: Turn) -> None:
    _retarget(turn, turn.state.target - 1)


def _retarget(turn: Turn, target: int) -> None:
    most = turn.state.limits.slots // 2
    if not 1 <= target <= most:
        turn.log(logging.WARNING, f"the number of workers stays {turn.state.target} (1..{most})")
        return
    turn.change(target=target)
    turn.log(logging.INFO, f"{target} {plural('worker', target)} from now on")


def _reopen(turn: Turn) -> None:
    for worker in turn.state.workers:
        if worker.ready_at is None:
            # Its handlers may not stand yet: it would ignore the signal and keep the old file.
            turn.change_worker(worker, owes_reopen=True)
        else:
            turn.send(worker, Signals.SIGUSR1)


_ORDERS: dict[Order, Callable[[Turn], None]] = {
    Order.STOP: _stop,
    Order.QUICK_STOP: _quick_stop,
    Order.RELOAD: reload,
    Order.MORE: _more,
    Order.FEWER: _fewer,
    Order.REOPEN: _reopen,
}
_ORDERS_DURING_STOP = frozenset({Order.STOP, Order.QUICK_STOP, Order.REOPEN})
