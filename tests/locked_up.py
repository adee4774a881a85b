"""An exporter as nobody, on a file system that is read-only but for one folder."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

from tests.documents import ROOT
from tests.real_parts import absent, program

#: Where it finds what it reads, and the one folder that it may write to.
CODE, SITE, CONFIG, STATE = (Path("/mnt") / name for name in ("code", "site", "config", "state"))
#: No name is resolved, and none is needed: whoever owns nothing.
NOBODY = 65534

# Every mount is made read-only, each by itself, for these processes alone; what is under /mnt comes
# after, so that only its last line can be written to. `proc` and `dev` hold nothing of a disk.
_SURROUNDINGS = """
set -e
for mounted in $(awk '$2 !~ "^/(proc|dev)(/|$)" { print $2 }' /proc/self/mounts); do
  mount -o remount,bind,ro "$mounted" 2>/dev/null || true
done
mount -t tmpfs -o mode=755 none /mnt
mkdir /mnt/code /mnt/site /mnt/python /mnt/config /mnt/state
mount --bind "$1" /mnt/code
mount -o remount,bind,ro /mnt/code
mount --bind "$2" /mnt/site
mount -o remount,bind,ro /mnt/site
mount --bind "$3" /mnt/python
mount -o remount,bind,ro /mnt/python
mount --bind "$4" /mnt/config
mount -o remount,bind,ro /mnt/config
mount -t tmpfs -o mode=700,uid=65534,gid=65534 none /mnt/state
mount -o remount,ro /mnt
[ ! -w /dev/shm ] || mount -t tmpfs -o ro none /dev/shm
python="/mnt/python/bin/$5"
shift 6
cd /
exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --inh-caps=-all \
  --bounding-set=-all env -i PATH=/usr/bin:/bin \
  LD_LIBRARY_PATH=/mnt/python/lib PYTHONPATH=/mnt/code:/mnt/site "$python" "$@"
"""


def prefix(config: Path) -> list[str]:
    """Give what runs a command so: neither home nor temporary folder, rights or capabilities.

    The test is skipped where this takes root and there is none, or fails with CI set.
    """
    if os.geteuid() != 0:
        absent("only root may run somebody else's process on another file system")
    config.chmod(0o755)
    python = Path(sys.executable).resolve().name
    return [
        *(program("unshare"), "--mount", "--propagation=private"),
        *("sh", "-c", _SURROUNDINGS, "sh"),
        # The interpreter may lie in the home of who runs the tests, which nobody may enter.
        *(str(ROOT), sysconfig.get_path("platlib"), sys.base_prefix, str(config), python),
    ]
