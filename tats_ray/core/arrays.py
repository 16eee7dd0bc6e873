"""Shape-carrying tensor annotations, checked in the test run and free everywhere else.

Axes mean the same in every file: `B` clips, `C` colour, `F` frames, `H W` pixels, `t h w` token
grid, `N` tokens, `K` visible, `M` hidden (N-K), `D` width, `P` values per token.

jaxtyping is a test dependency. Where it is missing, the annotations stand for the plain tensor.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Annotated as Bool
    from typing import Annotated as Float
    from typing import Annotated as Int
    from typing import Annotated as Shaped
    from typing import Annotated as UInt8
else:
    try:
        from jaxtyping import Bool, Float, Int, Shaped, UInt8
    except ImportError:

        class _Unchecked:
            def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
                return item[0]

        Bool = Float = Int = Shaped = UInt8 = _Unchecked

__all__ = ["Bool", "Float", "Int", "Shaped", "UInt8"]
