"""The metadata over the API: GET, PUT and PATCH /mmds, PUT /mmds/config, and what GET /vm/config tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from engine_fakes import FakeHypervisor

from firkin.engine.accel import Accel
from firkin.engine.controller import Controller
from firkin.engine.faults import NOT_AFTER_START
from firkin.engine.http import Request, Response
from firkin.engine.journal import Journal
from firkin.engine.snapshot.load import configure
from firkin.engine.snapshot.saved import SavedMachine
from firkin.engine.vmm import Vmm
from firkin.fcapi.boot import BootSource
from firkin.fcapi.config import VmConfig
from firkin.fcapi.mmds import MmdsConfig, MmdsVersion
from firkin.fcapi.network import NetworkInterface

NOT_INITIALIZED = "MMDS error: The MMDS data store is not initialized."


class FakeNic(NamedTuple):
    """An interface without a tap: only its name counts here."""

    config: NetworkInterface


class Api:
    def __init__(self, log: Path) -> None:
        journal = Journal("unit")
        journal.open(str(log))
        self.vmm = Vmm(journal, FakeHypervisor())
        self.vmm.mmds_size_limit = 100
        self.log = log
        self._controller = Controller(self.vmm)

    def boot(self) -> None:
        self.vmm.start()

    def raw(self, method: str, path: str, body: bytes | None = None) -> Response:
        return self._controller.answer(Request(method, path, body))

    def call(self, method: str, path: str, body: Any) -> int:
        return self.raw(method, path, json.dumps(body).encode()).status

    def get(self, path: str = "/mmds") -> Any:
        response = self.raw("GET", path)
        assert response.status == 200
        assert response.body is not None
        return json.loads(response.body)

    def fault(self, method: str, path: str, body: bytes | None) -> tuple[int, str]:
        response = self.raw(method, path, body)
        assert response.body is not None
        return response.status, json.loads(response.body)["fault_message"]


@pytest.fixture
def api(tmp_path: Path) -> Api:
    made = Api(tmp_path / "log")
    for name in ("eth0", "eth1"):
        config = NetworkInterface(iface_id=name, host_dev_name="tap0")
        made.vmm.resources.nics._nics.append(cast("Any", FakeNic(config)))
    return made


def test_metadata_is_put_patched_and_shown_sorted(api: Api) -> None:
    assert api.get() == {}
    assert api.call("PUT", "/mmds", {"b": {"x": 1}, "a": [1, None]}) == 204
    assert api.call("PATCH", "/mmds", {"b": {"y": 2, "x": None}}) == 204
    assert api.raw("GET", "/mmds").body == b'{"a":[1,null],"b":{"y":2}}'


@pytest.mark.parametrize("value", ["text", 7, None, True, [1], {}])
def test_any_json_is_metadata(api: Api, value: Any) -> None:
    assert api.call("PUT", "/mmds", value) == 204
    assert api.get() == ({} if value is None else value)


def test_a_patch_needs_something_to_patch(api: Api) -> None:
    assert api.fault("PATCH", "/mmds", b'{"a":1}') == (400, NOT_INITIALIZED)


def test_too_much_is_answered_with_413_and_changes_nothing(api: Api) -> None:
    text = "MMDS limit exceeded error: The MMDS patch request doesn't fit."
    assert api.fault("PUT", "/mmds", json.dumps("x" * 99).encode()) == (413, text)
    assert api.call("PUT", "/mmds", "x" * 98) == 204
    assert api.fault("PATCH", "/mmds", json.dumps("x" * 99).encode()) == (413, text)
    assert api.get() == "x" * 98


@pytest.mark.parametrize("body", [b"{", b"[1,]", b"[" * 20000, b"[" * 200 + b"]" * 200, b"1e999"])
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_bad_json_is_refused(api: Api, method: str, body: bytes) -> None:
    api.call("PUT", "/mmds", {})
    status, text = api.fault(method, "/mmds", body)
    assert status == 400
    assert text.startswith("An error occurred when deserializing the json body of a request: ")


def test_bodies_do_not_reach_the_log(api: Api) -> None:
    api.call("PUT", "/mmds", {"password": "secret"})
    assert 'received a Put request on "/mmds".' in api.log.read_text()
    assert "secret" not in api.log.read_text()


def test_the_service_works_on_after_the_start(api: Api) -> None:
    api.call("PUT", "/mmds", {"a": 1})
    api.boot()
    assert api.call("PATCH", "/mmds", {"b": 2}) == 204
    assert api.get() == {"a": 1, "b": 2}


def test_a_guest_started_without_the_service_has_none(api: Api) -> None:
    api.boot()
    for method, body in (("GET", None), ("PUT", b"{}"), ("PATCH", b"{}")):
        assert api.fault(method, "/mmds", body) == (400, NOT_INITIALIZED)


def test_the_configuration_is_shown_with_its_defaults(api: Api) -> None:
    assert api.get("/vm/config")["mmds-config"] is None
    response = api.raw("PUT", "/mmds/config", b'{"network_interfaces": ["eth1"]}')
    assert (response.status, response.deprecated) == (204, True)
    assert "PUT /mmds/config: V1 is deprecated. Use V2 instead." in api.log.read_text()
    assert api.get("/vm/config")["mmds-config"] == {
        "version": "V1",
        "imds_compat": False,
        "network_interfaces": ["eth1"],
        "ipv4_address": "169.254.169.254",
    }


def test_data_alone_configures_no_interface(api: Api) -> None:
    api.call("PUT", "/mmds", {})
    assert api.get("/vm/config")["mmds-config"]["network_interfaces"] == []


def test_a_bad_configuration_leaves_the_one_before(api: Api) -> None:
    good = {"network_interfaces": ["eth0"], "version": "V2", "ipv4_address": "169.254.170.2", "imds_compat": True}
    assert api.call("PUT", "/mmds/config", good) == 204
    status, text = api.fault("PUT", "/mmds/config", b'{"network_interfaces": ["eth9"]}')
    assert status == 400
    assert text.startswith("MMMDS config error: The list of network interface IDs provided contains")
    assert api.get("/vm/config")["mmds-config"] == good


@pytest.mark.parametrize("interfaces", [(), ("eth1",)])
def test_a_snapshot_brings_the_configuration_but_no_data(api: Api, interfaces: tuple[str, ...]) -> None:
    saved = SavedMachine(
        qemu_version="7.2",
        accelerator=Accel.TCG,
        acpi=False,
        saved_at_ns=1,
        tsc_khz=None,
        next_host_port=None,
        random_address=None,
        config=VmConfig(
            drives=(),
            boot_source=BootSource(kernel_image_path="/k"),
            mmds_config=MmdsConfig(network_interfaces=interfaces, version=MmdsVersion.V2),
        ),
        devices=b"",
    )
    configure(api.vmm, saved)
    api.boot()
    assert api.get() == {}
    assert api.get("/vm/config")["mmds-config"]["network_interfaces"] == list(interfaces)
    assert api.call("PUT", "/mmds", {"a": 1}) == 204


def test_the_configuration_is_for_before_the_start(api: Api) -> None:
    api.boot()
    assert api.fault("PUT", "/mmds/config", b'{"network_interfaces": ["eth0"]}') == (400, NOT_AFTER_START)
