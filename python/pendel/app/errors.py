"""What a user did wrong: the command line ends with status 2 and says which option or key it was."""


class ConfigError(ValueError):
    """A config file or override that cannot be used; the message begins with the dotted key, or with the file."""


class UsageError(ValueError):
    """A bad command line; the message begins with the option."""
