# SPDX-License-Identifier: BSD-3-Clause
"""What tests of the broker's metrics share: a scraper, and the list in docs/metrics.md."""
import os
import re
import socket

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
# What Debian's prometheus sends.
PROMETHEUS = ("application/openmetrics-text;version=1.0.0,application/openmetrics-text;"
              "version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="[A-Za-z0-9_.:+-]*",?)*)\})? '
                    r'([0-9]+(?:\.[0-9]+)?)$')


def free_port():
    """A port of 127.0.0.1 that nobody has now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def connect(address, seconds=30):
    """To a port of 127.0.0.1, or to a path."""
    if isinstance(address, str):
        peer = socket.socket(socket.AF_UNIX)
    else:
        peer, address = socket.socket(), ("127.0.0.1", address)
    peer.settimeout(seconds)
    peer.connect(address)
    return peer


def read_all(peer):
    """Until the other side ends."""
    parts = []
    while True:
        part = peer.recv(65536)
        if not part:
            return b"".join(parts)
        parts.append(part)


def split(answer):
    """Status, headers and body of an answer, without chunks."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    if headers.get("transfer-encoding") == "chunked" and body:
        body = unchunked(body)
    return int(lines[0].split()[1]), headers, body.decode()


def unchunked(body):
    parts = []
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        parts.append(body[:length])
        assert body[length:length + 2] == b"\r\n", body[:80]
        body = body[length + 2:]
        if not length:
            assert not body, body[:80]
            return b"".join(parts)


def ask(address, request):
    """A request of any bytes, and its answer."""
    with connect(address) as peer:
        peer.sendall(request)
        return split(read_all(peer))


def get(address, accept=None, version="1.1"):
    """Status, headers and body of /metrics."""
    lines = [f"GET /metrics HTTP/{version}", "Host: localhost"]
    lines += [f"Accept: {accept}"] if accept else []
    return ask(address, "\r\n".join([*lines, "", ""]).encode())


def labels_of(text):
    return dict(re.findall(r'([a-z_]+)="([^"]*)"', text or ""))


def samples(body):
    """{(name, labels as they are written): number}; anything else is an AssertionError."""
    found = {}
    for line in body.splitlines():
        if line.startswith("#"):
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        name, labels, number = match.groups()
        assert (name, labels) not in found, f"{line}: twice"
        found[name, labels] = float(number)
    return found


def scrape(address):
    """The samples."""
    status, _, body = get(address)
    assert status == 200, (status, body)
    return samples(body)


def of_vm(found, vm):
    """{name: number} of what has one series a VM."""
    return {name: number for (name, labels), number in found.items() if labels == f'vm="{vm}"'}


def families(body):
    """{sample's name: (type, unit, help)} of an answer in OpenMetrics."""
    end = {"counter": "_total", "info": "_info"}
    found, told = {}, {}
    for line in body.splitlines():
        match = re.fullmatch(r"# (HELP|TYPE|UNIT) ([a-z_]+) (.+)", line)
        if match:
            told.setdefault(match[2], {})[match[1]] = match[3]
    for name, facts in told.items():
        found[name + end.get(facts["TYPE"], "")] = \
            (facts["TYPE"], facts.get("UNIT", ""), facts["HELP"])
    return found


def documented():
    """{name: type} of docs/metrics.md."""
    with open(f"{TOP}/docs/metrics.md", encoding="utf-8") as file:
        return dict(re.findall(r"^\| `([a-z_]+)(?:\{[^}]*\})?` \| (\w+) \|", file.read(), re.M))
