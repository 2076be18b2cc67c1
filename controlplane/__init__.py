"""The control plane: the API that people and nodes call, the store, the scheduler and the controllers."""
