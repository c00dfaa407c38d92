"""Settings of the whole suite: hypothesis has no deadline, because a busy machine is not a defect."""

from hypothesis import settings

settings.register_profile("suite", deadline=None, print_blob=True)
settings.load_profile("suite")
