"""Settings of the whole suite: hypothesis has no deadline, because a busy machine is not a defect."""

from hypothesis import settings

settings.register_profile("suite", deadline=None, print_blob=True)
settings.register_profile("thorough", settings.get_profile("suite"), max_examples=1000)
settings.load_profile("suite")
