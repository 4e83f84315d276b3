"""The models that a site keeps of each run: the shared one and its personal one."""
