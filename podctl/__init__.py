"""podctl: the command line of Podplane, with kubectl's habits."""
