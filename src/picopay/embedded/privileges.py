"""Runs servers as an unprivileged account when we are root, and ties their life to ours.

PostgreSQL refuses to run as root. The account may have no way into the data directory or to the
programs (a virtual environment below /root): then it keeps one capability, the right to pass
directories, instead of our opening directories that are not ours.
"""

import ctypes
import os
import pwd
import signal
import sys
from pathlib import Path
from typing import NamedTuple

from picopay.embedded.errors import EmbeddedError

_ACCOUNT = "nobody"
# From linux/prctl.h and linux/capability.h.
_PR_SET_PDEATHSIG, _PR_SET_SECUREBITS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 1, 28, 47, 2
_SECBIT_NO_SETUID_FIXUP, _CAPABILITY_VERSION_3 = 1 << 2, 0x20080522
_CAP_CHOWN, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 0, 1, 2
_CAP_SETGID, _CAP_SETUID, _CAP_SETPCAP = 6, 7, 8

_INSTEAD = "run as an ordinary user, or set DATABASE_URL and REDIS_URL"

_linux = sys.platform == "linux"
_libc = ctypes.CDLL(None, use_errno=True)


class Account(NamedTuple):
    uid: int
    gid: int
    capability: int | None = None


def choose_account(server_dir: Path) -> Account | None:
    """Choose nobody when we are root, or who already owns the data; None: no need to change."""
    if os.geteuid() != 0:
        return None
    owner = server_dir.stat().st_uid if server_dir.exists() else 0
    try:
        entry = pwd.getpwuid(owner) if owner else pwd.getpwnam(_ACCOUNT)
    except KeyError:
        raise EmbeddedError(
            f"PostgreSQL does not run as root and there is no account {owner or _ACCOUNT!r}: "
            + _INSTEAD
        ) from None
    if not _all_available(_CAP_CHOWN, _CAP_SETGID, _CAP_SETUID):
        raise EmbeddedError(
            "PostgreSQL does not run as root, and this root may not become another account: "
            + _INSTEAD
        )
    return Account(entry.pw_uid, entry.pw_gid)


def with_capability(account: Account, directories: list[Path], programs: list[Path]) -> Account:
    """Add a capability if the account could not reach these otherwise."""
    closed = [path for path in directories if not _may_enter(path, account)]
    closed += [path for path in programs if not _may_execute(path, account)]
    if not closed:
        return account
    # Passing directories does not make a program executable; only the stronger right does.
    stuck = not all(_may_execute(path, account) for path in programs)
    wanted = [_CAP_DAC_OVERRIDE] if stuck else [_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE]
    for capability in wanted:
        if _linux and _all_available(capability, _CAP_SETPCAP):
            return account._replace(capability=capability)
    raise EmbeddedError(
        f"PostgreSQL does not run as root, and the account {_ACCOUNT!r} may not enter {closed[0]}: "
        "run as an ordinary user, or move the data directory and the virtual environment "
        "to a place that everybody may enter"
    )


def prepare_child(account: Account | None, death_signal: int, parent: int) -> None:
    """Run in the child between fork and exec."""
    if account:
        _become(account)
    # A signal that comes before the program has its own handlers must end it, not vanish in ours.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    # Last, because a change of credentials clears it.
    die_with_parent(death_signal, parent)


def die_with_parent(death_signal: int, parent: int) -> None:
    """On Linux, have this process sent the signal when its parent ends, however it ends."""
    if _linux:
        _check(_libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0))
    if os.getppid() != parent:
        os._exit(1)


def _become(account: Account) -> None:
    if account.capability is not None:
        # Capabilities outlive the change of account, and access(2), with which initdb looks for
        # its programs, heeds them.
        _check(_libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0))
    os.setgroups([])
    os.setgid(account.gid)
    os.setuid(account.uid)
    if account.capability is not None:
        _keep_only(account.capability)


def _keep_only(capability: int) -> None:
    """Permitted, effective and inheritable; ambient too, so that it survives exec."""
    mask = 1 << capability
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)))
    _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _all_available(*capabilities: int) -> bool:
    """Tell whether we hold them and may hand them on; who does not know them has them all."""
    status = Path("/proc/self/status")
    if not status.exists():
        return True
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    available = int(fields["CapPrm"], 16) & int(fields["CapBnd"], 16)
    return all(available >> capability & 1 for capability in capabilities)


def _may_enter(directory: Path, account: Account) -> bool:
    return all(_may_execute(path, account) for path in (directory, *directory.parents))


def _may_execute(path: Path, account: Account) -> bool:
    status = path.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & 0o100)
    return bool(status.st_mode & (0o010 if status.st_gid == account.gid else 0o001))
