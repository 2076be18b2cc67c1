"""Service rules under the clock: our modes beside layout replicas of kube-proxy's, on one kernel."""
