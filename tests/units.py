# SPDX-License-Identifier: BSD-3-Clause
"""What systemd-analyze says of unit files (host/*/service), without a systemd that runs."""
import os
import shutil
import subprocess
import tempfile


def installed(source, folder, bindir):
    """A file, or what meson makes a file of, but of the programs in @bindir; its path."""
    path = f"{folder}/{os.path.basename(source)}"
    template = os.path.exists(f"{source}.in")
    with open(f"{source}.in" if template else source, encoding="utf-8") as file, \
            open(path, "w", encoding="utf-8") as out:
        out.write(file.read().replace("@bindir@", bindir).replace("@sbindir@", bindir))
    return path


def analyze(bindir, exposure, *sources):
    """Each setting is known, and little is left open: of the first one, in tenths."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [installed(source, folder, bindir) for source in sources]
        for command in (["verify", "--man=no", *paths],
                        ["security", "--offline=true", f"--threshold={exposure}", paths[0]]):
            done = subprocess.run(["systemd-analyze", *command], stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, check=False)
            # A setting that verify does not know is a line, and no error.
            if done.returncode or command[0] == "verify" and done.stdout:
                return f"{command[0]}:\n{done.stdout}"
            if command[0] == "security":
                print(f"# {done.stdout.splitlines()[-1].lstrip('→ ')}")
    return None


def check_units(check, bindir, exposure, *sources):
    """A test, or why it is none."""
    if shutil.which("systemd-analyze"):
        check("units", analyze, bindir, exposure, *sources)
    else:
        print("ok - units # SKIP no systemd-analyze: scripts/install-packages units", flush=True)
