"""The error of this package."""


class DataError(ValueError):
    """Data that cannot be used; says what is wrong with them and what to do."""
