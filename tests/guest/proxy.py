# SPDX-License-Identifier: BSD-3-Clause
"""Between a VMM and its back end: ends their connection at a message of the VMM's."""
import contextlib
import os
import select
import socket
import struct
import tempfile
import threading


class Proxy:
    """Listens at .path and passes on to @target.  .connections: how many there were."""

    def __init__(self, target):
        self.target = target
        self.folder = tempfile.TemporaryDirectory(prefix="tmem-proxy-")
        self.path = f"{self.folder.name}/socket"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.connections, self.current, self.end_at = 0, (), None
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.listener.close()
        self.drop()
        self.folder.cleanup()

    def drop(self, end_at=None):
        """Ends the connection; the next one ends when the VMM sends request @end_at."""
        self.end_at = end_at
        for end in self.current:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def run(self):
        while True:
            try:
                vmm, _ = self.listener.accept()
            except OSError:
                return
            with vmm, socket.socket(socket.AF_UNIX) as back:
                back.connect(self.target)
                end_at, self.end_at = self.end_at, None
                self.current = (vmm, back)
                self.connections += 1
                try:
                    self.pass_on(vmm, back, end_at)
                except OSError:
                    pass
                self.current = ()

    @staticmethod
    def pass_on(vmm, back, end_at):
        while True:
            for end in select.select([vmm, back], [], [])[0]:
                if end is back:
                    data = back.recv(65536)
                    if not data:
                        return
                    vmm.sendall(data)
                    continue
                data, fds, _, _ = socket.recv_fds(vmm, 12, 8)
                if not data:
                    return
                data += vmm.recv(12 - len(data), socket.MSG_WAITALL) if len(data) < 12 else b""
                request, _, size = struct.unpack("<III", data)
                data += vmm.recv(size, socket.MSG_WAITALL) if size else b""
                if request != end_at:
                    socket.send_fds(back, [data], fds)
                for fd in fds:
                    os.close(fd)
                if request == end_at:
                    return
