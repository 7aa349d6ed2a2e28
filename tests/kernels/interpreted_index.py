"""Numbers from memory as bounds of loops in Triton's interpreter, which keeps every scalar as an array of one element.

Triton 3.6 takes `int` of that array, which numpy 2.4 and later refuse; 3.7 has what `repair` does.
"""

from __future__ import annotations

from typing import Any

from triton.runtime import interpreter


def repair() -> None:
    """From now on in this process."""
    patch = interpreter._patch_lang_tensor

    def patch_lang_tensor(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch_lang_tensor
