# Sourced by the scripts that install packages from Debian where they are missing and that is allowed.

# Whether packages may be installed by whoever runs this.
may_install() {
    if [ "$(id -u)" -eq 0 ]; then
        as_root=
    elif sudo -n true 2>/dev/null; then
        as_root="sudo -n"
    else
        return 1
    fi
}

# A question would go unseen into the log, and sudo hands no environment on. On a machine that has just started, apt may be busy.
apt_get() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

# One unreachable source of many fails this and may not matter. A mirror that takes connections and never answers is given up soon: left to
# itself apt tries it for ten minutes.
update_lists() {
    apt_get -o Acquire::Retries=0 -o Acquire::http::Timeout=15 update || echo "going on with the package lists that are there"
}

install_packages() {
    apt_get install -y --no-install-recommends "$@"
}
