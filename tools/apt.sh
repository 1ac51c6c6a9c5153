#!/bin/sh
# Installs the named Debian packages that are missing, as root, without starting the services they bring.
# The tests start private servers of their own; a system service would stay behind and hold the usual ports.
set -eu
missing=
for name; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $name"
done
[ -n "$missing" ] || exit 0
[ "$(id -u)" = 0 ] || { echo "Missing Debian packages:$missing (install them as root)" >&2; exit 1; }

policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    # Debian asks this file before it starts a service; 101 means: do not. Ours goes away again.
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=120 update
# shellcheck disable=SC2086  # one word per package
apt-get -q -y -o DPkg::Lock::Timeout=120 install --no-install-recommends $missing
