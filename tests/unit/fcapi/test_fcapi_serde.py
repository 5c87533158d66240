"""The texts and places here were given by serde_json 1.0.154 itself, for structs declared as Firecracker's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw, Struct

from firkin.fcapi import codec
from firkin.fcapi.config import VmConfig
from firkin.fcapi.cpu import CpuConfig
from firkin.fcapi.drives import Drive
from firkin.fcapi.instance import Action, Vm
from firkin.fcapi.limits import RateLimiter, TokenBucket
from firkin.fcapi.logger import Logger
from firkin.fcapi.machine import DEFAULT_MACHINE, HugePages, MachineConfiguration, MachineConfigurationPatch
from firkin.fcapi.metrics import MetricsConfig
from firkin.fcapi.mmds import MmdsConfig
from firkin.fcapi.network import NetworkInterface
from firkin.fcapi.routes import ROUTES
from firkin.fcapi.snapshot import SnapshotLoad
from firkin.fcapi.vsock import Vsock

MACHINE_FIELDS = "`vcpu_count`, `mem_size_mib`, `smt`, `cpu_template`, `track_dirty_pages`, `huge_pages`"
ACTIONS = "`FlushMetrics`, `InstanceStart`, `SendCtrlAltDel`"
BOOT_FIELDS = "`kernel_image_path`, `initrd_path`, `boot_args`"

REFUSED: dict[Any, list[tuple[bytes, str]]] = {
    MachineConfiguration: [
        (b'{"mem_size_mib": 128}', "missing field `vcpu_count` at line 1 column 21"),
        (b'{"mem_size_mib": 128 \n }', "missing field `vcpu_count` at line 2 column 2"),
        (b"{}", "missing field `vcpu_count` at line 1 column 2"),
        (b'{"vcpu_count":1,"x" : 2}', f"unknown field `x`, expected one of {MACHINE_FIELDS} at line 1 column 20"),
        (b'{"vcpu_count":1,"vcpu_count":2}', "duplicate field `vcpu_count` at line 1 column 28"),
        (b'{"vcpu_count":"1"}', 'invalid type: string "1", expected u8 at line 1 column 17'),
        (b'{"vcpu_count":300}', "invalid value: integer `300`, expected u8 at line 1 column 17"),
        (b'{"vcpu_count":-1}', "invalid value: integer `-1`, expected u8 at line 1 column 16"),
        (b'{"vcpu_count":1.0}', "invalid type: floating point `1.0`, expected u8 at line 1 column 17"),
        (b'{"vcpu_count":-0}', "invalid type: floating point `-0.0`, expected u8 at line 1 column 16"),
        (b'{"vcpu_count":null}', "invalid type: null, expected u8 at line 1 column 18"),
        (b'{"vcpu_count":true}', "invalid type: boolean `true`, expected u8 at line 1 column 18"),
        (b'{"vcpu_count":[]}', "invalid type: sequence, expected u8 at line 1 column 14"),
        (b'{"vcpu_count":{}}', "invalid type: map, expected u8 at line 1 column 14"),
        (
            b'{"mem_size_mib":18446744073709551616}',
            "invalid type: floating point `1.8446744073709552e+19`, expected usize at line 1 column 36",
        ),
        (b'{"smt":1}', "invalid type: integer `1`, expected a boolean at line 1 column 8"),
        (b'{"smt":null}', "invalid type: null, expected a boolean at line 1 column 11"),
        (b'{"huge_pages":"4M"}', "unknown variant `4M`, expected `None` or `2M` at line 1 column 18"),
        (
            b'{"cpu_template":"V1N1"}',
            "unknown variant `V1N1`, expected one of `C3`, `T2`, `T2S`, `None`, `T2CL`, `T2A` at line 1 column 22",
        ),
        (b'{"huge_pages":7}', "expected value at line 1 column 15"),
        (b'{"huge_pages":{"3M":null}}', "unknown variant `3M`, expected `None` or `2M` at line 1 column 19"),
        (b'{"huge_pages":{"2M":1}}', "invalid type: integer `1`, expected unit at line 1 column 21"),
        (b'{"huge_pages":{"2M":null,}}', "expected value at line 1 column 24"),
        (b'{"huge_pages":{}}', "expected value at line 1 column 16"),
        (b"[1]", "invalid length 1, expected struct MachineConfig with 6 elements at line 1 column 3"),
        (b"[1,2,3]", "invalid type: integer `3`, expected a boolean at line 1 column 6"),
        (b'[1,2,true,null,false,"2M",7]', "trailing characters at line 1 column 27"),
        (b'"x\\n"', 'invalid type: string "x\\n", expected struct MachineConfig at line 1 column 5'),
        (b"7", "invalid type: integer `7`, expected struct MachineConfig at line 1 column 1"),
        (b"", "EOF while parsing a value at line 1 column 0"),
        (b" \n", "EOF while parsing a value at line 2 column 0"),
        (b"{", "EOF while parsing an object at line 1 column 1"),
        (b'{"a', "EOF while parsing a string at line 1 column 3"),
        (b'{"vcpu_count"', "EOF while parsing an object at line 1 column 13"),
        (b'{"vcpu_count" 1', "expected `:` at line 1 column 15"),
        (b'{"vcpu_count":', "EOF while parsing a value at line 1 column 14"),
        (b'{"vcpu_count":1', "EOF while parsing an object at line 1 column 15"),
        (b'{"vcpu_count":1,', "EOF while parsing a value at line 1 column 16"),
        (b'{"vcpu_count":1,}', "trailing comma at line 1 column 17"),
        (b'{"vcpu_count":1 "x"', "expected `,` or `}` at line 1 column 17"),
        (b"{vcpu_count:1}", "key must be a string at line 1 column 2"),
        (b'{"vcpu_count":1,"mem_size_mib":2} x', "trailing characters at line 1 column 35"),
        (b'{"vcpu_count":01}', "invalid number at line 1 column 16"),
        (b'{"vcpu_count":-}', "invalid number at line 1 column 16"),
        (b'{"vcpu_count":1.}', "invalid number at line 1 column 17"),
        (b'{"vcpu_count":1e}', "invalid number at line 1 column 17"),
        (b'{"vcpu_count":1e999}', "number out of range at line 1 column 19"),
        (b'{"vcpu_count":nul}', "expected ident at line 1 column 18"),
        (b'{"vcpu_count":tr', "EOF while parsing a value at line 1 column 16"),
        (b'{"vcpu_count":x}', "expected value at line 1 column 15"),
    ],
    Vsock: [
        (
            b'{"uds_path":"\t"}',
            "control character (\\u0000-\\u001F) found while parsing a string at line 1 column 14",
        ),
        (b'{"uds_path":"\\q"}', "invalid escape at line 1 column 15"),
        (b'{"uds_path":"\\u12', "EOF while parsing a string at line 1 column 17"),
        (b'{"uds_path":"\\u12x4"}', "invalid escape at line 1 column 19"),
        (b'{"uds_path":"\\ud800"}', "unexpected end of hex escape at line 1 column 20"),
        (b'{"uds_path":"\\udc00"}', "lone leading surrogate in hex escape at line 1 column 19"),
        (b'{"uds_path":"\\ud800\\u0041"}', "lone leading surrogate in hex escape at line 1 column 25"),
        (b'{"uds_path":"a\xffb"}', "invalid unicode code point at line 1 column 15"),
    ],
    Vm: [
        (b'{"state":"Stopped"}', "unknown variant `Stopped`, expected `Paused` or `Resumed` at line 1 column 18"),
        (b'{"status":"Paused"}', "unknown field `status`, expected `state` at line 1 column 9"),
    ],
    MmdsConfig: [
        (b'{"version":"foo"}', "unknown variant `foo`, expected `V1` or `V2` at line 1 column 16"),
        (b'{"network_interfaces":["a"],"ipv4_address":"1.2.3"}', "invalid IPv4 address syntax at line 1 column 50"),
        (b'{"ipv4_address":7}', "invalid type: integer `7`, expected IPv4 address at line 1 column 17"),
        (b'{"network_interfaces":["a",]}', "trailing comma at line 1 column 28"),
        (b'{"network_interfaces":["a" "b"]}', "expected `,` or `]` at line 1 column 28"),
        (b'{"network_interfaces":["a"', "EOF while parsing a list at line 1 column 26"),
        (b'{"network_interfaces":"a"}', 'invalid type: string "a", expected a sequence at line 1 column 25'),
    ],
    Action: [
        (
            b'{"action_type":"foo"}',
            f"unknown variant `foo`, expected one of {ACTIONS} at line 1 column 20",
        ),
    ],
    Drive: [
        (
            b'{"drive_id":"d","rate_limiter":{"bandwidth":{"size":1,"more":[{"x":1}],"refill_time":"x"}}}',
            'invalid type: string "x", expected u64 at line 1 column 88',
        ),
        (
            b'{"drive_id":"d","rate_limiter":{"size":1}}',
            "unknown field `size`, expected `bandwidth` or `ops` at line 1 column 38",
        ),
        (b'{"drive_id":"d","rate_limiter":{"ops":{"size":1}}}', "missing field `refill_time` at line 1 column 48"),
    ],
    NetworkInterface: [
        (
            b'{"iface_id":"a","host_dev_name":"t","guest_mac":"bad"}',
            "The provided MAC address is invalid. at line 1 column 54",
        ),
        (b'{"guest_mac":"bad" , "iface_id":"a"}', "The provided MAC address is invalid. at line 1 column 19"),
        (b'{"guest_mac":7}', "invalid type: integer `7`, expected a string at line 1 column 14"),
        (b'{"mtu":65536}', "invalid value: integer `65536`, expected u16 at line 1 column 12"),
    ],
    MetricsConfig: [
        (b'{"other":1}', "missing field `metrics_path` at line 1 column 11"),
        (b'{"other":[1,}]', "expected value at line 1 column 13"),
        (b'{"other":{"a":1,}}', "key must be a string at line 1 column 17"),
        (b'{"other":{"a" 1}}', "expected `:` at line 1 column 15"),
        (b'{"other":[1', "EOF while parsing a list at line 1 column 11"),
        (b'{"other":1.}', "invalid number at line 1 column 12"),
        (b'{"metrics_path":1}', "invalid type: integer `1`, expected path string at line 1 column 17"),
    ],
    VmConfig: [
        (b"{}", "missing field `drives` at line 1 column 2"),
        (b'{"drives":[]}', "missing field `boot-source` at line 1 column 13"),
        (
            b'{\n  "drives": [],\n  "boot-source": {\n    "kernel": 1\n  }\n}\n',
            f"unknown field `kernel`, expected one of {BOOT_FIELDS} at line 4 column 12",
        ),
        (
            b'{"cpu-config":{"x":1},"drives":[]}',
            "data did not match any variant of untagged enum CustomCpuTemplateOrPath at line 1 column 21",
        ),
    ],
    Raw: [
        (b"[1,]", "trailing comma at line 1 column 4"),
        (b'{"a":1,}', "trailing comma at line 1 column 8"),
        (b'{"a":x}', "expected value at line 1 column 6"),
        (b"1e400", "number out of range at line 1 column 5"),
        (b'"\\ud800"', "unexpected end of hex escape at line 1 column 8"),
        (b"{} {}", "trailing characters at line 1 column 4"),
        (b"", "EOF while parsing a value at line 1 column 0"),
    ],
}


def text_of(body: bytes, kind: Any) -> str:
    with pytest.raises(codec.Malformed) as caught:
        codec.decode(body, kind)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "body", "text"), [(kind, body, text) for kind, cases in REFUSED.items() for body, text in cases]
)
def test_each_mistake_has_serdes_words_and_place(kind: Any, body: bytes, text: str) -> None:
    assert text_of(body, kind) == text


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("1.5", "1.5"),
        ("-0", "-0.0"),
        ("1e5", "100000.0"),
        ("1e16", "1e+16"),
        ("-1.5e-5", "-0.000015"),
        ("1e-7", "1e-7"),
        ("3e23", "2.9999999999999997e+23"),
        ("18446744073709551616", "1.8446744073709552e+19"),
        ("0.00016744073709551615", "0.00016744073709551617"),
        ("1e-99999999999", "0.0"),
        ("0e99999999999", "0.0"),
        ("1" * 300 + "e8", "1.1111111111111111e+307"),
    ],
)
def test_floats_are_shown_as_serde_reads_them(number: str, shown: str) -> None:
    expected = f"invalid type: floating point `{shown}`, expected struct Vm at line 1 column {len(number)}"
    assert text_of(number.encode(), Vm) == expected


def test_nesting_ends_at_127_brackets() -> None:
    assert codec.decode(b"[" * 127 + b"]" * 127, Raw)
    assert text_of(b"[" * 128 + b"]" * 128, Raw) == "recursion limit exceeded at line 1 column 128"
    deep = b'{"metrics_path":"p","other":' + b"[" * 5000 + b"]" * 5000 + b"}"
    assert codec.decode(deep, MetricsConfig) == MetricsConfig(metrics_path="p")


@pytest.mark.parametrize(
    ("body", "kind", "value"),
    [
        (b'[2,256,true,null,false,"2M"]', MachineConfiguration, (2, 256, True, UNSET, False, HugePages.HUGETLBFS_2M)),
        (b'{"vcpu_count":1,"mem_size_mib":2,"huge_pages":{"2M":null}}', MachineConfiguration, (1, 2)),
        (b'{"vcpu_count":null,"smt":true}', MachineConfigurationPatch, (UNSET, UNSET, True)),
        (b'{"guest_cid":3,"uds_path":"\\u00e9\\ud83d\\ude00\\n"}', Vsock, (UNSET, 3, "é😀\n")),
        (b'{"log_path":null,"level":"WARNING"}', Logger, (None, "WARNING")),
    ],
)
def test_what_serde_takes_is_taken(body: bytes, kind: type[Struct], value: tuple[object, ...]) -> None:
    decoded = codec.decode(body, kind)
    assert tuple(getattr(decoded, name) for name in kind.__struct_fields__)[: len(value)] == value


def test_null_leaves_the_default_machine() -> None:
    config = b'{"drives":[],"boot-source":{"kernel_image_path":"k"},"machine-config":null,"serial":7}'
    assert codec.decode(config, VmConfig).machine_config == DEFAULT_MACHINE


def test_a_mac_address_is_kept_in_small_letters() -> None:
    body = b'{"iface_id":"a","host_dev_name":"t","guest_mac":"06:00:AC:10:00:02"}'
    assert codec.decode(body, NetworkInterface).guest_mac == "06:00:ac:10:00:02"


def test_the_whole_of_a_snapshot_load_is_judged_without_a_place() -> None:
    both = b'{"snapshot_path":"s","mem_file_path":"m","mem_backend":{"backend_path":"m","backend_type":"File"}}'
    required = "either `mem_backend` or `mem_file_path`"
    assert text_of(both, SnapshotLoad) == f"too many fields: {required} exclusively is required"
    assert text_of(b'{"snapshot_path":"s"}', SnapshotLoad) == f"missing field: {required} is required"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            b'{"msr_modifiers":[{"addr":"17","bitmap":"0b1"}]}',
            "No supported number system prefix found in value [17]. ",
        ),
        (
            b'{"msr_modifiers":[{"addr":"0x1G","bitmap":"0b1"}]}',
            "Failed to parse string [0x1G] as a number for CPU template - ParseIntError { kind: InvalidDigit }",
        ),
        (
            b'{"msr_modifiers":[{"addr":"0x1","bitmap":"0b2"}]}',
            "Failed to parse string [0b2] as a bitmap - unknown character: 50 at line 1 column 47",
        ),
        (
            b'{"kvm_capabilities":["!"]}',
            "Failed to parse string [!] as a kvm capability - can not convert to numeric: cannot parse integer from",
        ),
        (
            b'{"cpuid_modifiers":[{"leaf":"0x1","subleaf":"0b0","flags":0,"modifiers":[{"register":"e","bitmap":"x"}]}]}',
            "Invalid CPUID register. Must be one of [eax, ebx, ecx, edx] at line 1 column 88",
        ),
    ],
)
def test_the_texts_of_a_cpu_template_have_a_syntax_of_their_own(body: bytes, text: str) -> None:
    assert text_of(body, CpuConfig).startswith(text)


def test_an_unknown_level_is_refused_by_the_parser() -> None:
    assert text_of(b'{"level":"loud"}', Logger) == "Invalid LevelFilter at line 1 column 16"


TYPED = sorted(
    {route.body for route in ROUTES if route.body not in (None, Raw)} | {VmConfig}, key=lambda kind: kind.__name__
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()), st.sampled_from([*TYPED, Raw]))
def test_no_bytes_break_the_reader(body: bytes, kind: Any) -> None:
    try:
        codec.decode(body, kind)
    except codec.Malformed as malformed:
        assert_place_is_in(body, str(malformed))


@given(VALUES.filter(lambda value: "NaN" not in json.dumps(value) and "Infinity" not in json.dumps(value)))
def test_every_json_document_is_json(value: object) -> None:
    body = json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
    try:
        body.decode()
    except UnicodeDecodeError:
        assert "invalid unicode code point" in text_of(body, Raw)
    else:
        assert codec.decode(body, Raw) == Raw(body)


@given(st.text(), st.booleans(), st.none() | st.text(), st.integers(0, 2**64 - 1))
def test_what_is_encoded_reads_back_the_same(name: str, root: bool, path: str | None, size: int) -> None:
    limiter = RateLimiter(ops=TokenBucket(size=size, refill_time=100))
    drive = Drive(drive_id=name, is_root_device=root, path_on_host=path, rate_limiter=limiter)
    assert codec.decode(codec.encode(drive), Drive) == drive


def assert_place_is_in(body: bytes, text: str) -> None:
    if " at line " not in text:
        return  # a complaint of the whole
    line, column = (int(word) for word in text.rpartition(" at line ")[2].split(" column "))
    lines = body.split(b"\n")
    assert 1 <= line <= len(lines)
    assert 0 <= column <= len(lines[line - 1]) + 1
