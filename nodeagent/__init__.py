"""The node agent: turns bind events into running pods and Services into kernel rules, and reports what happened."""
