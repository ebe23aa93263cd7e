#!/usr/bin/python3
"""Builds what a test guest boots from: a Debian kernel and an initramfs of agent, busybox and a few modules.

    build.py [DIRECTORY]        default: .build/guest of the checkout

The kernel is the installed linux-image-*-cloud-amd64 if there is one; otherwise the package is downloaded and unpacked,
since installing it drags in a boot loader's worth of hooks that a container or a small root cannot run.

Debian packages: gcc libc6-dev busybox-static cpio (and apt's lists, for the download).
"""
import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
DEFAULT = HERE.parents[2] / ".build" / "guest"
AGENT = ["agent.c", "jobs.c", "jobs.h"]
META_PACKAGE = "linux-image-cloud-amd64"

# What a guest needs, and what tests load by hand (`run insmod`): a bridge, and VLANs on it; a disk, and drivers of devices
# that a process drives itself.
MODULES_LOADED = ["virtio_pci", "virtio_net", "virtio_console"]
MODULES_CARRIED = ["bridge", "8021q", "virtio_blk", "vfio_iommu_type1", "vfio_pci"]


def kernel(directory):
    """(vmlinuz, folder of modules) of the newest cloud kernel, installed or downloaded."""
    def newest(root):
        images = sorted(root.glob("boot/vmlinuz-*-cloud-amd64"), key=lambda path: path.stat().st_mtime)
        for image in reversed(images):
            modules = root / "lib/modules" / image.name.removeprefix("vmlinuz-")
            if modules.is_dir():
                return image, modules
        return None

    unpacked = directory / "kernel"
    found = newest(pathlib.Path("/")) or newest(unpacked)
    if found:
        return found
    depends = subprocess.run(["apt-cache", "depends", META_PACKAGE], check=True, capture_output=True, text=True).stdout
    package = re.search(r"Depends: (linux-image-\S+)", depends)
    if not package:
        sys.exit(f"guest: apt knows no {META_PACKAGE}: run 'apt-get update', or 'make deps'")
    subprocess.run(["apt-get", "-qq", "download", package[1]], check=True, cwd=directory)
    (archive,) = directory.glob(f"{package[1]}_*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, unpacked], check=True)
    archive.unlink()
    return newest(unpacked)


def with_dependencies(names, folder):
    """Paths of the modules, each after those it depends on; built-in ones have no file and are left out.

    An unpacked package has no modules.dep, so the dependencies come from each module's own .modinfo.
    """
    files = {path.name.removesuffix(".ko").replace("-", "_"): path for path in folder.rglob("*.ko")}
    order = []

    def visit(name):
        path = files.get(name.replace("-", "_"))
        if path is None or path in order:
            return
        depends = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
        for needed in (depends[1].decode().split(",") if depends and depends[1] else []):
            visit(needed)
        order.append(path)

    for name in names:
        visit(name)
    return order


def build(directory=DEFAULT):
    """Returns (vmlinuz, initramfs), built if missing or older than its sources."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)   # two test runs in one checkout
        return _build(directory)
    finally:
        os.close(lock)


def _build(directory):
    vmlinuz, modules = kernel(directory)
    image, sources = directory / f"initramfs-{modules.name}", [HERE / name for name in (*AGENT, "build.py")]
    if image.exists() and image.stat().st_mtime > max(path.stat().st_mtime for path in sources):
        return vmlinuz, image

    root = directory / "root"
    shutil.rmtree(root, ignore_errors=True)
    for name in ("bin", "dev", "proc", "sys", "tmp", "lib"):
        (root / name).mkdir(parents=True)
    subprocess.run(["gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o", root / "init",
                    HERE / "agent.c", HERE / "jobs.c"], check=True)
    shutil.copy("/bin/busybox", root / "bin")
    applets = subprocess.run(["/bin/busybox", "--list"], check=True, capture_output=True, text=True).stdout
    for applet in set(applets.split()) - {"busybox"}:
        (root / "bin" / applet).symlink_to("busybox")
    loaded = with_dependencies(MODULES_LOADED, modules)
    for path in with_dependencies(MODULES_LOADED + MODULES_CARRIED, modules):
        shutil.copy(path, root / "lib")
    (root / "modules").write_text("".join(f"/lib/{path.name}\n" for path in loaded))

    names = b"".join(bytes(path.relative_to(root)) + b"\0" for path in sorted(root.rglob("*")))
    fresh = image.with_suffix(".new")
    with fresh.open("wb") as out:
        subprocess.run(["cpio", "--null", "--create", "--format=newc", "--owner=0:0", "--quiet"],
                       cwd=root, input=names, stdout=out, check=True)
    shutil.rmtree(root)
    fresh.replace(image)
    return vmlinuz, image


if __name__ == "__main__":
    print(*build(*sys.argv[1:2]), sep="\n")
