# Makes a private host out of fresh network, mount and pid namespaces, then becomes the process
# whose end is theirs.  $1: the staged tree, or empty.  $2: "uplink" or "bare".  $3: the tree of
# packages, or empty.  $4: a root file system to be in, or empty; behind it, directories of the
# machine's that are to be seen there, too.
set -eu

# Our pid as the test sees it: /proc is still the machine's.
read -r pid _ </proc/self/stat

mount -t proc proc /proc
mount -t sysfs sysfs /sys

# A private /dev, so that /dev/log is the test's own and not the machine's.
device() { mknod -m 666 "/dev/$1" c "$2" "$3"; }
mount -t tmpfs -o mode=755 tmpfs /dev
mkdir /dev/net /dev/pts /dev/shm
device null 1 3
device zero 1 5
device full 1 7
device random 1 8
device urandom 1 9
device tty 5 0
device net/tun 10 200
mount -t devpts -o newinstance,ptmxmode=666 devpts /dev/pts
ln -s pts/ptmx /dev/ptmx
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr

# By short paths of our own: a comma or a colon in the path of the repository would end an option
# of overlayfs.
mkdir /dev/.overlay
for tree in "stage:$1" "packages:$3"; do
    mkdir "/dev/.overlay/${tree%%:*}"
    [ -z "${tree#*:}" ] || mount -o bind,ro "${tree#*:}" "/dev/.overlay/${tree%%:*}"
done
# What lies on top of a directory of the machine's, as overlayfs wants it.
above() {
    for tree in stage packages; do
        [ ! -d "/dev/.overlay/$tree/$1" ] || printf %s "/dev/.overlay/$tree/$1:"
    done
}

# The machine's /etc and /tmp, but what a test writes there stays here, and it can't write
# anywhere else.
mount -t tmpfs -o mode=755 tmpfs /run
writable='etc tmp'
[ -z "$3" ] || writable="$writable var"
for directory in $writable; do
    upper=/dev/.overlay/$directory
    mkdir "$upper" "$upper.work"
    chmod --reference="/$directory" "$upper"
    mount -t overlay -o "lowerdir=$(above "$directory")/$directory,upperdir=$upper,workdir=$upper.work" overlay "/$directory"
done
rm -rf /etc/kvmnet
mount -o remount,bind,ro /

# The installed programs at their real paths.
[ -z "$(above usr)" ] || mount -t overlay -o "lowerdir=$(above usr)/usr" overlay /usr

if [ -n "$3" ]; then
    # dockerd wants cgroups of one version, with directories of the machine's own file system
    # for its images. Those of version 2 can be mounted anywhere.
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir -p /var/lib/docker /var/log/firewalld
    mount -t tmpfs tmpfs /var/lib/docker
    rm -f /etc/docker/daemon.json
fi

ip link set lo up
if [ "$2" = uplink ]; then
    ip netns add outside
    ip link add eno1 type veth peer name lan0 netns outside
    # Duplicate address detection would leave the addresses in flux for the first two seconds. A kernel may
    # be without IPv6.
    [ ! -e /proc/sys/net/ipv6 ] || echo 0 >/proc/sys/net/ipv6/conf/eno1/accept_dad
    ip netns exec outside sh -c '
        [ ! -e /proc/sys/net/ipv6 ] || echo 0 >/proc/sys/net/ipv6/conf/lan0/accept_dad
        ip -batch -' <<-END
	link set lo up
	address add 203.0.113.1/32 dev lo
	address add 10.0.0.1/24 dev lan0
	link set lan0 up
	END
    ip -batch - <<-END
	address add 10.0.0.11/24 dev eno1
	link set eno1 up
	route add default via 10.0.0.1 dev eno1
	END
    # Older kernels give a veth its own address of IPv6 a moment after it is up, where they give it one.
    tries=40
    while [ -e /proc/sys/net/ipv6 ] && [ $tries -gt 0 ] &&
        [ -z "$(ip -6 address show dev eno1 scope link)" ]; do
        sleep 0.05
        tries=$((tries - 1))
    done
fi

# Another system than the machine's own: what is written there stays here.
if [ -n "$4" ]; then
    root=/dev/.overlay/root
    mkdir "$root" "$root.lower" "$root.upper" "$root.work"
    mount -o bind,ro "$4" "$root.lower"
    mount -t overlay -o "lowerdir=$root.lower,upperdir=$root.upper,workdir=$root.work" overlay "$root"
    mount -t proc proc "$root/proc"
    mount -t sysfs sysfs "$root/sys"
    mount --bind /dev "$root/dev"
    mount --rbind /dev/pts "$root/dev/pts"
    mount --rbind /run "$root/run"
    shift 4
    for directory; do
        mkdir -p "$root$directory"
        mount -o bind,ro "$directory" "$root$directory"
    done
    # `ip netns` shares its mounts with copies of them, which would go with those of the old root.
    mount --make-rprivate /
    mkdir "$root/dev/.old"
    cd "$root"
    pivot_root . dev/.old
    umount -l /dev/.old
    cd /
fi

echo "ready $pid"
# With SIGCHLD ignored the kernel reaps the orphans of this namespace by itself (not by the
# shell's own trap: dash doesn't pass that on).
# Standard input is a pipe that the test holds: it ends when the test does, whatever ended it,
# and with this process the kernel kills all others of the namespace.
exec env --ignore-signal=CHLD cat >/dev/null 2>&1
