"""The contract of `Tree`, on the fake and on ZooKeeper."""

from __future__ import annotations

import threading

import pytest

from mrc.core.errors import MrcError
from mrc.ports import Check, Conflict, Create, Delete, Node, Put
from tests.contract.tree_stages import SESSION_S, TreeStage
from tests.contract.waiting import eventually


def test_what_is_not_there_is_none_and_has_no_children(ensemble: TreeStage) -> None:
    tree = ensemble.connect()
    assert tree.get("/groups") is None
    assert tree.children("/groups") == []


def test_ensure_makes_parents_and_may_be_repeated(ensemble: TreeStage) -> None:
    tree = ensemble.connect()
    tree.ensure("/groups/orders/ledger")
    tree.ensure("/groups/orders/ledger")
    assert tree.get("/groups/orders/ledger") == Node(b"", 0)
    assert tree.children("/groups") == ["orders"]


def test_versions_grow_with_every_put_and_start_at_zero(ensemble: TreeStage) -> None:
    tree = ensemble.connect()
    tree.commit([Create("/a", b"0")])
    tree.commit([Put("/a", b"1", 0)])
    tree.commit([Put("/a", b"2", 1)])
    assert tree.get("/a") == Node(b"2", 2)
    tree.commit([Delete("/a", 2), Create("/a", b"again")])
    assert tree.get("/a") == Node(b"again", 0)


def test_children_are_sorted_names(ensemble: TreeStage) -> None:
    tree = ensemble.connect()
    tree.ensure("/a")
    tree.commit([Create("/a/2", b""), Create("/a/10", b""), Create("/a/1", b"")])
    assert tree.children("/a") == ["1", "10", "2"]


def test_many_nodes_are_read_at_once_and_none_stands_for_one_that_is_not_there(ensemble: TreeStage) -> None:
    tree = ensemble.connect()
    tree.ensure("/a")
    tree.commit([Create(f"/a/{n}", str(n).encode()) for n in range(300)])
    tree.commit([Put("/a/7", b"seven", 0)])
    found = tree.get_all([*(f"/a/{n}" for n in range(300)), "/a/none", "/none/b"])
    assert found == [*(Node(b"seven", 1) if n == 7 else Node(str(n).encode(), 0) for n in range(300)), None, None]
    assert tree.get_all([]) == []


@pytest.mark.parametrize(
    "op",
    [
        Check("/a", 7),
        Check("/none", 0),
        Create("/a", b""),
        Create("/none/b", b""),
        Put("/a", b"", 7),
        Put("/none", b"", 0),
        Delete("/a", 7),
        Delete("/p", 0),
    ],
    ids=str,
)
def test_a_commit_with_one_lost_comparison_changes_nothing(ensemble: TreeStage, op: Check | Create | Put | Delete) -> None:
    tree = ensemble.connect()
    tree.commit([Create("/a", b"a"), Create("/p", b"p"), Create("/p/child", b"")])
    with pytest.raises(Conflict):
        tree.commit([Create("/new", b""), Put("/a", b"changed", 0), op])
    assert tree.get("/new") is None
    assert tree.get("/a") == Node(b"a", 0)


def test_an_ephemeral_node_belongs_to_its_session_and_ends_with_it(ensemble: TreeStage) -> None:
    mine, others = ensemble.connect(), ensemble.connect()
    mine.ensure("/regions")
    mine.create_ephemeral("/regions/leader", b"mine")
    with pytest.raises(Conflict):
        others.create_ephemeral("/regions/leader", b"others")
    assert mine.owns("/regions/leader")
    assert not others.owns("/regions/leader")
    ensemble.end(mine)
    assert others.get("/regions/leader") is None
    others.create_ephemeral("/regions/leader", b"others")
    assert others.get("/regions/leader") == Node(b"others", 0)


def test_an_expired_session_owns_nothing_and_the_handle_goes_on(ensemble: TreeStage) -> None:
    tree = ensemble.connect()
    tree.create_ephemeral("/leader", b"")
    ensemble.expire(tree)
    assert not tree.owns("/leader")
    tree.create_ephemeral("/leader", b"again")
    assert tree.owns("/leader")


def test_a_persistent_node_is_nobodys(ensemble: TreeStage) -> None:
    tree = ensemble.connect()
    tree.commit([Create("/a", b"")])
    assert not tree.owns("/a")
    assert not tree.owns("/none")


def test_a_watch_tells_of_making_changing_and_removing(ensemble: TreeStage) -> None:
    watching, writing = ensemble.connect(), ensemble.connect()
    told = threading.Semaphore(0)
    watching.watch("/record", told.release)
    # The first request after the watch is answered after it was set.
    watching.get("/record")
    for ops in ([Create("/record", b"")], [Put("/record", b"1", 0)], [Delete("/record", 1)], [Create("/record", b"")]):
        writing.commit(ops)
        assert told.acquire(timeout=5)
        eventually(lambda: ensemble.pause(0.02), lambda: watching.get("/record") == writing.get("/record"))
        ensemble.pause(0.1)


def test_a_watch_outlives_its_session(ensemble: TreeStage) -> None:
    watching, writing = ensemble.connect(), ensemble.connect()
    told = threading.Semaphore(0)
    writing.commit([Create("/record", b"")])
    watching.watch("/record", told.release)
    ensemble.expire(watching)
    watching.get("/record")
    ensemble.pause(0.2)
    while told.acquire(blocking=False):
        pass
    writing.commit([Put("/record", b"1", 0)])
    assert told.acquire(timeout=5)


def test_the_lease_is_part_of_the_session_time_out_and_runs_out(ensemble: TreeStage) -> None:
    tree = ensemble.connect()
    tree.get("/")
    full_s = tree.lease_s()
    assert 0 < full_s <= SESSION_S * 2 / 3
    ensemble.pause(0.3)
    assert tree.lease_s() < full_s - 0.2
    tree.get("/")
    assert tree.lease_s() > full_s - 0.2


def test_a_call_in_a_hurry_is_answered_like_any_other(ensemble: TreeStage) -> None:
    tree = ensemble.connect()
    tree.commit([Create("/a", b"a")])
    with tree.within(10.0), tree.within(60.0):
        assert tree.get("/a") == Node(b"a", 0)
    assert tree.get("/a") == Node(b"a", 0)


def test_a_full_path_has_a_root_before_it(ensemble: TreeStage) -> None:
    path = ensemble.dead.full_path("/groups/orders")
    assert path.endswith("/groups/orders")
    assert path != "/groups/orders"


def test_an_ensemble_that_does_not_answer_is_an_error_and_no_lease(ensemble: TreeStage) -> None:
    with pytest.raises(MrcError) as raised:
        ensemble.dead.get("/")
    assert (raised.value.code, raised.value.retryable) == ("ZOOKEEPER_UNREACHABLE", True)
    with pytest.raises(MrcError):
        ensemble.dead.commit([Create("/a", b"")])
    assert ensemble.dead.lease_s() <= 0
