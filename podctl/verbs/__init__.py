"""One module for each verb; podctl.cli imports the one that is used."""
