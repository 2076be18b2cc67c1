"""Containers of the node: OCI specs, conmon and crun or runc, root filesystems, images, volumes, logs, cgroups."""
