"""The exception types of the project, nothing else. A message says what, where and what to do."""

from __future__ import annotations

from rmsai_ray.scrubbing import scrub


class RmsaiError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(RmsaiError):
    """A configuration value breaks a rule. Raised before Ray starts; exit code 2. Secrets are not shown."""

    def __init__(self, name: str, value: object, rule: str, fix: str) -> None:
        self.name, self.value, self.rule, self.fix = name, value, rule, fix
        super().__init__(scrub(f"{name}={value!r}: {rule}. {fix}"))


class ArchiveError(RmsaiError):
    """One archive cannot be used. It costs that archive, never the run.

    ``reason`` is the stable reason code that lands in the ``rejects`` table.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


class CheckpointError(RmsaiError):
    """A model checkpoint cannot be loaded; the message says what was expected and what was found."""


class StorageError(RmsaiError):
    """An object could not be read, written or listed after all retries."""


class DeniedError(StorageError):
    """An object may not be read with the credentials that there are."""


class LakeError(RmsaiError):
    """The lake is in a state that this command must not work on (held by another run, foreign schema)."""


class LakeHeldError(LakeError):
    """Another run works on the lake, and nothing was done; exit code 4: the same command again, later."""


class RejectLimitError(RmsaiError):
    """The run finished, with more rejected archives than allowed; exit code 3."""


class AlertsRaisedError(RmsaiError):
    """Everything was done, and what was found is worth an alert; exit code 5, or 6 where it is critical."""

    def __init__(self, message: str, *, is_critical: bool) -> None:
        self.is_critical = is_critical
        super().__init__(message)
