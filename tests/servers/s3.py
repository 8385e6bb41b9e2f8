"""A real S3 server: Ceph's radosgw over one monitor and one store in memory, on loopback.

Chosen because its conditional put is atomic, as on AWS; it starts in some 10 s and holds
about 360 MB. Each test process has its own.
"""

import itertools
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Kept, answers, free_port, need, wait_until
from tests.servers.faultproxy import FaultProxy, fault_proxy

INSTALL = (
    "RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive "
    "apt-get install -y --no-install-recommends radosgw ceph-mon ceph-osd ceph-common"
)
CONF = """
[global]
fsid = {fsid}
mon_host = v1:127.0.0.1:{mon_port}
mon_initial_members = a
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
public_network = 127.0.0.0/8
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
mon_data_avail_crit = 1
osd_crush_chooseleaf_type = 0
mon_data = {folder}/mon
osd_data = {folder}/osd
run_dir = {folder}/run
admin_socket = {folder}/run/$name.sock
pid_file = {folder}/run/$name.pid
log_file = {folder}/log/$name.log
crash_dir = {folder}/crash
log_to_stderr = false
setuser_match_path = {folder}
ms_bind_ipv6 = false
osd_class_load_list = *
osd_class_default_list = *
osd_class_update_on_start = false
osd_crush_update_on_start = false
[client.rgw.a]
rgw_frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw_enable_usage_log = false
rgw_enable_gc_threads = false
rgw_enable_lc_threads = false
rgw_dns_name =
rgw_thread_pool_size = 32
"""


@dataclass(frozen=True)
class S3Server:
    """Where it answers and who may ask."""

    endpoint: str
    access_key: str = "testkey"
    secret_key: str = field(default="testsecret", repr=False)
    region: str = "us-east-1"
    _count: Iterator[int] = field(default_factory=itertools.count, repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """What boto3 and deltalake read."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """A boto3 client of its own, past any proxy."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
        )

    def new_bucket(self) -> str:
        """Make an empty bucket; returns its name."""
        name = f"b{os.getpid()}-{next(self._count)}"
        self.client().create_bucket(Bucket=name)
        return name


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """The server of this test process."""
    for program in ("radosgw", "ceph-mon", "ceph-osd", "ceph", "radosgw-admin", "monmaptool"):
        need(program, INSTALL)
    folder = Path(tempfile.mkdtemp(prefix="sitedrift-s3-"))
    running: list[Kept] = []
    try:
        yield _start(folder, running)
    finally:
        for server in reversed(running):
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, with the environment set so that boto3 and deltalake find it."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    return s3_server


@pytest.fixture
def bucket_uri(s3: S3Server) -> str:
    """An empty place in an empty bucket."""
    return f"s3://{s3.new_bucket()}/some/prefix"


@pytest.fixture(scope="session")
def s3_proxy(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """A proxy in front of the server."""
    port = int(s3_server.endpoint.rsplit(":", 1)[1])
    with fault_proxy(port, tmp_path_factory.mktemp("faultproxy")) as proxy:
        yield proxy


@pytest.fixture
def faulty_s3(s3: S3Server, s3_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """The proxy, with no rule yet; boto3 and deltalake go through it and wait two seconds for an answer."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.endpoint)
    monkeypatch.setenv("SITEDRIFT_STORE_TIMEOUT_S", "2")
    s3_proxy.fail()
    yield s3_proxy
    s3_proxy.fail()


def _start(folder: Path, running: list[Kept]) -> S3Server:
    """Monitor, store and gateway, in this order; a server that is running is in `running`."""
    ports = free_port(), free_port()
    facts = {"fsid": str(uuid.uuid4()), "mon_port": ports[0], "port": ports[1], "folder": folder}
    for name in ("mon", "osd", "run", "log", "crash"):
        (folder / name).mkdir()
    conf = folder / "ceph.conf"
    conf.write_text(CONF.format(**facts))
    say = _speaker(conf, folder / "log" / "commands.log")

    def start(*command: str) -> Kept:
        log = folder / "log" / f"{command[0]}.out"
        running.append(Kept([need(command[0], INSTALL), *command[1:], "-f"], log, {"CEPH_CONF": str(conf)}))
        return running[-1]

    fsid, address = str(facts["fsid"]), f"[v1:127.0.0.1:{ports[0]}]"
    say("monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", address, str(folder / "monmap"))
    say("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(folder / "monmap"))
    mon = start("ceph-mon", "-i", "a")
    wait_until(lambda: answers(ports[0]), "ceph-mon", mon.log)
    osd_uuid = str(uuid.uuid4())
    say("ceph", "--connect-timeout", "30", "osd", "create", osd_uuid)
    say("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd_uuid)
    say("ceph", "osd", "crush", "add", "osd.0", "1.0", "host=h", "root=default")
    osd = start("ceph-osd", "-i", "0")
    wait_until(lambda: "1 up" in say("ceph", "osd", "stat"), "ceph-osd", osd.log)
    server = S3Server(f"http://127.0.0.1:{ports[1]}")
    keys = f"--access-key={server.access_key}", f"--secret-key={server.secret_key}"
    gateway = start("radosgw", "-n", "client.rgw.a")
    wait_until(lambda: answers(ports[1]), "radosgw", gateway.log)
    say("radosgw-admin", "user", "create", "--uid=test", "--display-name=test", *keys)
    return server


def _speaker(conf: Path, log: Path) -> Callable[..., str]:
    """Runs one command of the cluster's own and returns what it said.

    A client that is faster than the monitor's first map is refused; asked again it is served.
    Every command here may be given twice.
    """

    def ask(program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [need(program, INSTALL), *arguments]
        environment = os.environ | {"CEPH_CONF": str(conf)}
        with log.open("ab") as out:
            return subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, stderr=out, timeout=120, check=False
            )

    def say(program: str, *arguments: str) -> str:
        for wait_s in (1, 2, 4, 8, 0):
            told = ask(program, *arguments)
            if told.returncode == 0:
                break
            time.sleep(wait_s)
        assert told.returncode == 0, f"{program} {arguments}: {log.read_text(errors='replace')[-2000:]}"
        return told.stdout.decode()

    return say
