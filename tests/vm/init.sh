#!/bin/busybox sh
# The initrd's init: modules, network, then the root that the kernel's command line names. On failure: a message on the
# console, and the power goes off.
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sysfs /sys; $b mount -t devtmpfs dev /dev
while read module; do $b insmod /modules/$module || $b echo "insmod $module failed"; done </order
for word in $($b cat /proc/cmdline); do
  case $word in vm.*=*) name=${word%%=*}; eval "vm_${name#vm.}=\${word#*=}" ;; esac
done
give_up() { $b echo "init: $1"; $b echo o >/proc/sysrq-trigger; $b sleep 9; }
$b ip link set lo up
if [ -n "$vm_address" ]; then
  $b ip address add "$vm_address" dev eth0 && $b ip link set eth0 up || give_up "eth0 cannot have $vm_address"
  [ -z "$vm_gateway" ] || $b ip route add default via "$vm_gateway"
fi
if [ "$vm_root" = disk ]; then
  $b mount -t ext4 /dev/vda /new || give_up "no disk"
  exec $b switch_root /new /sbin/init
fi
$b mount -t virtiofs root /lower || give_up "no virtiofs"
$b mount -t tmpfs -o size=80% tmpfs /scratch; $b mkdir /scratch/up /scratch/work
$b mount -t overlay overlay -o lowerdir=/lower,upperdir=/scratch/up,workdir=/scratch/work /new || give_up "no overlay"
$b mount --move /dev /new/dev; $b mount -t proc proc /new/proc; $b mount -t sysfs sysfs /new/sys
$b mkdir -p /new/dev/pts /new/dev/shm /new/dev/mqueue /new/usr/lib/modules
$b mount -t devpts devpts /new/dev/pts; $b mount -t tmpfs tmpfs /new/dev/shm; $b mount -t mqueue mqueue /new/dev/mqueue
$b mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
for directory in run tmp var/lib/podplane; do
  $b mkdir -p /new/$directory; $b mount -t tmpfs -o size=60% tmpfs /new/$directory
done
$b mount -o bind "/lower$vm_modules" /new/usr/lib/modules
$b hostname "${vm_hostname:-vm}"; $b hostname >/new/etc/hostname
# busybox's init as PID 1 reaps what daemons leave behind.
$b echo "::respawn:/usr/bin/python3 -IS $vm_agent" >/new/etc/inittab
exec $b switch_root /new /bin/busybox init
