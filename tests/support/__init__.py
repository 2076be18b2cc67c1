"""What several tests share: clients, clusters, registries, images. Real parts only."""
