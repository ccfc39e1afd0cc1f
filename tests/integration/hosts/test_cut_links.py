"""Three hosts whose links are cut and healed: two halves live on, and each takes itself for the whole."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from redis.crc import key_slot

from producers import ContactProducer, NotAccepted
from tests.support.clusters import changes
from tests.support.commands import told
from tests.support.fleet import PARTITIONS, Fleet
from tests.support.hosts import Hosts, Namespace
from tests.support.redis_hosts import ClusterHosts, SentinelHosts
from tests.support.waiting import wait_until
from tests.support.worker_process import PROCESS, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.standin.client import StandInClient

pytestmark = pytest.mark.timeout(120)

MANY = 40
"""Changes that are said at a time, of as many owners."""

GIVEN = PROCESS | {"endpoint_insecure": "allow"}

Pairs = set[tuple[str, str]]


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with Hosts() as made:
        yield made


@pytest.fixture
def endpoint(hosts: Hosts) -> Iterator[StandInClient]:
    """Reached by every host over its second network; the test itself is outside, with whoever is not cut off."""
    with hosts.stand_in() as client, hosts.outside.inside():
        yield client


@pytest.fixture
def directory() -> Iterator[Path]:
    """With a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="cs-", ignore_cleanup_errors=True) as made:
        yield Path(made)


def pairs(contact: str) -> Pairs:
    return {(str(i), contact) for i in range(MANY)}


def say(producer: ContactProducer, contact: str, op: str = "upsert") -> None:
    """Says changes of a contact, again and again until all are accepted, as an app does."""
    left: object = [{**each, "op": op} for each in changes(MANY, contact)]

    def accepted() -> bool:
        nonlocal left
        try:
            producer.send(left)  # type: ignore[arg-type] # at first mappings, then what was not accepted
        except NotAccepted as error:
            left = error.changes
            return False
        return True

    wait_until(accepted, seconds=30, what=f"{contact} is accepted")


def wait_delivered(endpoint: StandInClient, wanted: Pairs) -> None:
    wait_until(lambda: wanted <= endpoint.contacts(), seconds=40, what="it is delivered")


@contextmanager
def worker_on(host: Namespace, fleet: Fleet, directory: Path) -> Iterator[WorkerProcess]:
    """A worker on a host, which takes tasks."""
    with ExitStack() as stack:
        with host.inside():
            worker = stack.enter_context(WorkerProcess(fleet.environment(), directory / "workers"))
        yield worker.wait_until_ready()


def test_a_master_that_is_cut_off_with_its_producer_and_worker(
    hosts: Hosts, endpoint: StandInClient, directory: Path, namespace: str
) -> None:
    cut_off = hosts.hosts[0]
    with (
        SentinelHosts(hosts, directory) as servers,
        Fleet(servers.url, namespace, endpoint, **GIVEN, broker_url="memory://") as fleet,
        ContactProducer(settings=fleet.settings()) as there,
        ContactProducer(settings=fleet.settings()) as here,
    ):
        old = servers.servers[0]
        with worker_on(cut_off, fleet, directory) as lonely, worker_on(hosts.hosts[1], fleet, directory) as other:
            say(here, "kept")
            say(here, "doomed")
            with cut_off.inside():
                say(there, "first")  # so its connection leads to the master, over no link
            wait_delivered(endpoint, pairs("kept") | pairs("doomed") | pairs("first"))
            wait_until(lambda: not fleet.waits(), seconds=20, what="all is settled")
            assert servers.ask(old, "WAIT", 2, 5_000) == 2

            hosts.cut(0)
            with cut_off.inside():
                say(there, "lonely")  # the old master still takes it, and its worker delivers it
                say(there, "doomed")
            wait_delivered(endpoint, pairs("lonely"))
            wait_until(lambda: servers.named_by(1) == servers.named_by(2) != old, seconds=30, what="another is elected")
            new = servers.named_by(1)
            wait_until(lambda: servers.role(new) == "master", seconds=20, what="it leads")
            assert servers.role(old) == "master"
            say(here, "majority")
            say(here, "doomed", "delete")
            wait_delivered(endpoint, pairs("majority"))
            wait_until(lambda: not pairs("doomed") & endpoint.contacts(), seconds=40, what="the deletes are confirmed")

            hosts.cut(0, "endpoint")
            with cut_off.inside():
                say(there, "discarded")
            assert servers.entries(old)
            hosts.heal(0)
            wait_until(lambda: servers.role(old) == "slave", seconds=30, what="the old master is a replica")
            wait_until(lambda: servers.follows(old), seconds=30, what="it has the data of the new one")
            with cut_off.inside():
                say(there, "after")
            say(here, "last")
            wait_delivered(endpoint, pairs("after") | pairs("last"))
            wait_until(lambda: not fleet.waits(), seconds=30, what="nothing waits")
            assert not pairs("discarded") & endpoint.contacts()

            hosts.heal(0, "endpoint")
            wait_until(lambda: "redis_lost_changes" in lonely.said(), seconds=20, what="the loss is noticed")
            assert "redis_lost_changes" not in other.said()
            say(here, "end")
            wait_delivered(endpoint, pairs("end"))
            wait_until(lambda: not fleet.waits(), seconds=30, what="nothing waits")
            assert told(fleet, "status")["lost"] is not None
            kept = ("kept", "first", "lonely", "majority", "after", "last", "end")
            # A request that was under way when the link was healed may have delivered what the log has lost.
            assert endpoint.contacts() - pairs("discarded") == set().union(*map(pairs, kept))
            assert lonely.process.poll() is None
            assert other.process.poll() is None


def test_a_host_of_a_cluster_that_is_cut_off_with_a_producer_and_a_worker(
    hosts: Hosts, endpoint: StandInClient, directory: Path, namespace: str
) -> None:
    cut_off = hosts.hosts[0]
    with (
        ClusterHosts(hosts, directory) as servers,
        Fleet(servers.url, namespace, endpoint, **GIVEN, broker_url="memory://") as fleet,
        ContactProducer(settings=fleet.settings()) as there,
        ContactProducer(settings=fleet.settings()) as here,
    ):
        theirs = {p for p in range(PARTITIONS) if key_slot(b"%d" % p) * 3 // 16_384 == 0}
        assert theirs
        owners = [str(i) for i in range(MANY)]
        others = {(owner, "others") for owner in owners if fleet.partition(owner) not in theirs}
        with worker_on(cut_off, fleet, directory) as lonely, worker_on(hosts.hosts[1], fleet, directory) as other:
            say(here, "kept")
            with cut_off.inside():
                say(there, "first")
            wait_delivered(endpoint, pairs("kept") | pairs("first"))
            wait_until(lambda: not fleet.waits(), seconds=20, what="all is settled")

            old, counted = servers.masters[0], fleet.keys.partition(min(theirs))
            wait_until(lambda: servers.ask(old, "HGET", counted, "beat"), seconds=20, what="it was looked at")
            hosts.cut(0)
            hosts.cut(0, "endpoint")
            checks = int(servers.ask(old, "HGET", counted, "beat"))
            with cut_off.inside(), pytest.raises(NotAccepted) as caught:
                there.send(changes(MANY, "lonely"))
            refused = {each.owner for each in caught.value.changes}
            taken = {owner for owner in owners if owner not in refused}
            # Its own master takes them, which does not know yet that it is cut off, and no other one.
            assert {fleet.partition(owner) for owner in taken} == theirs
            wait_until(
                lambda: int(servers.ask(old, "HGET", counted, "beat")) >= checks + 2,
                seconds=20,
                what="it was looked at",
            )
            say_those = [each for each in changes(MANY, "others") if fleet.partition(each["owner"]) not in theirs]
            here.send(say_those)
            wait_delivered(endpoint, others)
            replica = servers.replicas[0]
            wait_until(lambda: servers.serves_slots(replica), seconds=30, what="the replica takes over")
            say(here, "majority")
            wait_delivered(endpoint, pairs("majority"))

            hosts.heal(0)
            wait_until(lambda: servers.role(old) == "slave", seconds=30, what="the old master follows")
            with cut_off.inside():
                say(there, "after")
            wait_delivered(endpoint, pairs("after"))
            wait_until(lambda: not fleet.waits(), seconds=30, what="nothing waits")
            # What was written to the others and not answered is uncertain: it may arrive once the link is healed.
            assert not {(owner, "lonely") for owner in taken} & endpoint.contacts()

            hosts.heal(0, "endpoint")
            wait_until(lambda: "redis_lost_changes" in lonely.said(), seconds=20, what="the loss is noticed")
            assert told(fleet, "status")["lost"] is not None
            say(here, "end")
            wait_delivered(endpoint, pairs("end"))
            kept = set().union(*map(pairs, ("kept", "first", "majority", "after", "end"))) | others
            assert endpoint.contacts() - pairs("lonely") == kept  # as above
            assert lonely.process.poll() is None
            assert other.process.poll() is None


def test_the_link_to_the_endpoint_is_cut_and_healed(
    hosts: Hosts, endpoint: StandInClient, directory: Path, namespace: str
) -> None:
    with (
        SentinelHosts(hosts, directory) as servers,
        Fleet(servers.url, namespace, endpoint, **GIVEN) as fleet,
        ContactProducer(settings=fleet.settings()) as producer,
        worker_on(hosts.hosts[1], fleet, directory) as worker,
    ):
        say(producer, "before")
        wait_delivered(endpoint, pairs("before"))
        requests = endpoint.counts()["requests"]
        hosts.cut(1, "endpoint")
        say(producer, "meanwhile")
        say(producer, "before", "delete")
        wait_until(lambda: "batch_retry" in worker.said(), seconds=30, what="a request had no answer")
        assert endpoint.counts()["requests"] == requests
        hosts.heal(1, "endpoint")
        wait_delivered(endpoint, pairs("meanwhile"))
        wait_until(lambda: not fleet.waits(), seconds=30, what="nothing waits")
        assert endpoint.contacts() == pairs("meanwhile")
        assert told(fleet, "status")["lost"] is None
