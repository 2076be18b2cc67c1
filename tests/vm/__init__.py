"""Real VMs, for what this machine's kernel lacks: IPVS, cgroup v2, netem, NFS, systemd, a reboot, a power cut."""
