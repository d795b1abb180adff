"""A persistent family that outlives the caches over it."""


class DictFamily(dict[bytes, bytes]):
    """The method names of a column family over a dict."""

    def put(self, row_key: bytes, value: bytes, /) -> None:
        self[row_key] = value

    def delete(self, row_key: bytes, /) -> None:
        self.pop(row_key, None)
