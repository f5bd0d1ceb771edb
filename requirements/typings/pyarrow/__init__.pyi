# pyarrow is compiled and ships no types: whatever it has is Any.
from typing import Any

def __getattr__(name: str) -> Any: ...
