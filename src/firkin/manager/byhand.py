"""What a person would type for what firkin does by system calls: the tool also teaches. Pure."""

from __future__ import annotations

from pathlib import Path

from firkin.net.plan import LinkPlan, NetworkPlan
from firkin.vmm import boot as boot_files


def prefix(network: NetworkPlan) -> str:
    """How a command gets into the network's namespace."""
    return f"ip netns exec {network.netns} " if network.netns else ""


def network(network: NetworkPlan, link: LinkPlan) -> tuple[str, ...]:
    """The commands that make this network and one machine's tap."""
    ip = f"ip -n {network.netns}" if network.netns else "ip"
    return (
        *([f"ip netns add {network.netns}"] if network.netns else []),
        f"{ip} link add {network.bridge} type bridge",
        f"{ip} addr add {network.gateway} dev {network.bridge}",
        f"{ip} link set {network.bridge} up",
        f"{ip} tuntap add {link.tap} mode tap",
        f"{ip} link set {link.tap} master {network.bridge} up",
    )


def boot(network: NetworkPlan, engine: str, folder: Path) -> tuple[str, ...]:
    """The command that boots this machine from its config file."""
    return (
        f"cd {folder}",
        f"{prefix(network)}{engine} --api-sock {boot_files.API_SOCKET} --config-file vm_config.json",
    )
