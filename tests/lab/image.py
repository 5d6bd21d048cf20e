# SPDX-License-Identifier: MIT
"""What the emulated host and its guests boot from.

The initramfs images are made for each run, from what Debian installed or
unpacked here: the hosts' (busybox, the agent, kvm_amd, the VMMs under test
with the libraries that ldd names, the guests' kernels) and the guests'
(busybox, virtio modules). They are newc archives, written without
cpio and without compression: under emulation, unpacking is what costs.

The store is a disk for a host: a file system with the image in it that disk
guests have their root on. It is made once (tools/debian-image) and cached; a
host writes to a snapshot of it.
"""

import lzma
import os
import pathlib
import re
import shutil
import stat
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent.parent
DIRECTORIES = ("bin", "dev", "proc", "sys", "run", "tmp", "etc", "modules",
               "root", "store")
GUEST_MODULES = ("virtio_pci", "virtio_blk", "virtio_rng", "virtio_net",
                 "virtio_console", "button", "evdev")
# Told lab.late, guests load these too.
GUEST_LATE = ("virtio_balloon", "pvpanic_mmio")
HOST_MODULES = ("irqbypass", "kvm", "kvm_amd", "virtio_pci", "virtio_console",
                "virtio_blk", "tun", "bridge")
# Of hosts with a network: these take a while to load.
SITE_MODULES = ("virtio_net", "nfsv4", "nfsd", "nbd")
# The disk guests' Debian: what it has besides what every Debian has.
DISK_PACKAGES = "fio,stress-ng"
DISK_SIZE = "700M"
STORE_SIZE = "1G"

# QEMU looks for its firmware beside itself; -L in vmm.py names this place.
FIRMWARE_PLACES = ("/usr/share/seabios", "/usr/share/qemu", "/usr/lib/ipxe/qemu")
FIRMWARE = ("bios-256k.bin", "qboot.rom", "kvmvapic.bin",
            "linuxboot_dma.bin")


class Missing(Exception):
    """Something that the lab is built from is not on this machine."""


class Archive:
    """A newc cpio archive that is being filled, in memory."""

    def __init__(self):
        self._parts = []
        self._names = set()

    def _add(self, name, mode, data):
        if name in self._names:
            return
        self._names.add(name)
        parent = os.path.dirname(name)
        if parent:
            self.directory(parent)
        encoded = name.encode() + b"\0"
        fields = (len(self._parts), mode, 0, 0, 1, 0, len(data),
                  0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields)
        for part in (header + encoded, data):
            self._parts += (part, bytes(-len(part) % 4))

    def directory(self, name):
        """Adds a directory, and those above it."""
        self._add(name, stat.S_IFDIR | 0o755, b"")

    def data(self, name, data, mode=0o644):
        """Adds a regular file with this content."""
        self._add(name, stat.S_IFREG | mode, data)

    def file(self, name, path, mode=0o644):
        """Adds a regular file with the content of one from here."""
        self.data(name, pathlib.Path(path).read_bytes(), mode)

    def link(self, name, target):
        """Adds a symbolic link."""
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def program(self, name, path):
        """Adds a program and every library that the loader would map."""
        self.file(name, path, 0o755)
        for library in libraries(path):
            self.file(library.lstrip("/"), library, 0o755)

    def busybox(self, path):
        """Adds busybox under all of its names that are free."""
        self.file("bin/busybox", path, 0o755)
        applets = subprocess.run([path, "--list"], check=True,
                                 stdout=subprocess.PIPE, text=True).stdout
        for applet in applets.split():
            if applet != "busybox":
                self.link("bin/" + applet, "busybox")

    def write(self, path):
        """Writes the archive; it is complete where it appears."""
        self._add("TRAILER!!!", 0, b"")
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        with open(temporary, "wb") as out:
            out.writelines(self._parts)
        os.rename(temporary, path)


class Kernel:
    """An unpacked linux-image package."""

    def __init__(self, series, directory):
        self.series = series
        self.package = (directory / "package").read_text().strip()
        self.image = next((directory / "boot").glob("vmlinuz-*"))
        self.release = self.image.name.removeprefix("vmlinuz-")
        self._modules = directory / "lib/modules" / self.release
        if not self._modules.is_dir():
            self._modules = directory / "usr/lib/modules" / self.release

    def _find(self, name):
        pattern = re.sub("[-_]", "[-_]", name) + ".ko*"
        return next(self._modules.rglob(pattern), None)

    def modules(self, names):
        """(name, content) of these modules and of what they need, in order.

        What is built in to this kernel has no file and needs none.
        """
        done = {}

        def visit(name):
            name = name.replace("-", "_")
            path = self._find(name)
            if name in done or path is None:
                return
            content = path.read_bytes()
            if path.suffix == ".xz":
                # busybox's insmod takes plain modules only.
                content = lzma.decompress(content)
            # depmod did not run: the module itself says what it needs.
            needs = re.search(rb"\0depends=([^\0]*)\0", content)
            for need in (needs.group(1).decode() if needs else "").split(","):
                if need:
                    visit(need)
            done[name] = content

        for name in names:
            visit(name)
        return [(name + ".ko", content) for name, content in done.items()]


def libraries(path):
    """The shared objects that the loader maps for a program, by full path."""
    result = subprocess.run(["ldd", path], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, check=False)
    if "not found" in result.stdout:
        raise Missing(f"{path} lacks a library:\n{result.stdout}")
    return re.findall(r"(/\S+) \(0x", result.stdout)


def tool(name, package):
    """Full path of a program that a Debian package brings."""
    # Not whatever comes first in PATH: Debian's, whose libraries are here.
    path = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
    if path is None:
        raise Missing(f"{name} is missing: install {package}")
    return path


def fetch(series):
    """Unpacked kernels of these series, from the cache or through apt."""
    result = subprocess.run([HERE / "fetch", *series], check=False,
                            stdout=subprocess.PIPE, text=True)
    if result.returncode:
        raise Missing("tests/lab/fetch could not get the kernels")
    return {name: Kernel(name, pathlib.Path(line)) for name, line
            in zip(series, result.stdout.split())}


def store(log):
    """The store's path; made first, which takes minutes, when not cached."""
    cache = pathlib.Path(os.environ.get("LAB_CACHE")
                         or TOP / "build/lab/cache")
    path = cache / "store"
    if path.exists():
        return path
    for package, name in (("mmdebstrap", "mmdebstrap"),
                          ("e2fsprogs", "mke2fs")):
        tool(name, package)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".store.") as work:
        tree = pathlib.Path(work) / "tree"
        (tree / "locks").mkdir(parents=True)
        made = pathlib.Path(work) / "store"
        with open(made, "wb") as empty:
            empty.truncate(0)
        for command in (
                [TOP / "tools/debian-image", "--userland", "--size", DISK_SIZE,
                 "--include", DISK_PACKAGES, tree / "disk"],
                [tool("mke2fs", "e2fsprogs"), "-q", "-F", "-t", "ext4", "-d",
                 tree, made, STORE_SIZE]):
            with open(log, "ab") as out:
                result = subprocess.run(command, stdout=out, stderr=out,
                                        check=False)
            if result.returncode:
                raise Missing(f"{command[0]} failed; its words are in {log}")
        # Two runs may make one at once: they are alike.
        os.rename(made, path)
    return path


def _base(init, kernel, modules, late=()):
    """What every image has; the modules of /modules/late are left for later."""
    archive = Archive()
    for name in DIRECTORIES:
        archive.directory(name)
    archive.file("init", HERE / "init" / init, 0o755)
    archive.file("lab/lines", HERE / "init/lines")
    files = dict(kernel.modules(modules))
    rest = {name: content for name, content
            in kernel.modules(late) if name not in files}
    for order, group in (("order", files), ("late", rest)):
        for name, content in group.items():
            archive.data("modules/" + name, content)
        archive.data("modules/" + order,
                     "".join(name + "\n" for name in group).encode())
    return archive


def guest_image(path, kernel, programs):
    """Writes the initrd that guests with this kernel boot.

    They are counting guests, or, told root=/dev/vda, go on from their disk.
    programs: name -> path here, of those that they have besides busybox.
    """
    archive = _base("guest", kernel, GUEST_MODULES, GUEST_LATE)
    for name in ("server", "writer", "answer", "build", "leased"):
        archive.file("lab/" + name, HERE / "init" / name, 0o755)
    for name, program in programs.items():
        archive.program("bin/" + name, program)
    archive.busybox(tool("busybox", "busybox-static"))
    archive.write(path)


def host_image(path, kernel, agent, guests, programs):
    """Writes the initramfs of the emulated host.

    guests: series -> (Kernel, {word behind its name: initrd's path});
    programs: name -> path here.
    """
    archive = _base("host", kernel, HOST_MODULES, SITE_MODULES)
    archive.file("bin/agent", agent, 0o755)
    archive.file("lab/session", HERE / "init/session", 0o755)
    archive.file("tools/godwit-bridge", TOP / "tools/godwit-bridge", 0o755)
    for name, program in programs.items():
        archive.program("bin/" + name, program)
    archive.busybox(tool("busybox", "busybox-static"))
    # As README's tour has it; its tools lie in its directory (tour.py).
    archive.data("bin/sudo", b'#!/bin/sh\nexec "$@"\n', 0o755)
    archive.data("etc/hosts", b"127.0.0.1 localhost\n192.0.2.2 other-host\n")
    archive.data("etc/passwd", b"root:x:0:0:root:/tmp:/bin/sh\n")
    archive.data("etc/nsswitch.conf", b"hosts: files\n")
    archive.link("srv/locks", "/store/locks")
    for name in FIRMWARE:
        found = [f"{place}/{name}" for place in FIRMWARE_PLACES
                 if os.path.exists(f"{place}/{name}")]
        if not found:
            raise Missing(f"{name} is missing: install qemu-system-x86")
        archive.file("firmware/" + name, found[0])
    for series, (guest, initrds) in guests.items():
        archive.file(f"guest/vmlinuz-{series}", guest.image)
        for word, initrd in initrds.items():
            archive.file(f"guest/initrd-{series}{word}", initrd)
    archive.write(path)
