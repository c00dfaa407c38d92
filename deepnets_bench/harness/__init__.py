"""The harness: tracks, image sets, training, evaluation and the runner that turns a job into result rows."""
