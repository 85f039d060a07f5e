"""What scripts ask of a tensor, answered for dense values on the CPU."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import torch

T = TypeVar("T", bound="Attributes")

_NO = "cuda ipu maia meta mkldnn mps mtia nested quantized sparse sparse_csr vulkan xla xpu"  # attributes
_NEVER = "complex conj distributed inference neg pinned"  # methods


class Attributes:
    """Attributes of `Tensor` that say what kind of tensor it is."""

    __slots__ = ()
    _data: torch.Tensor

    is_cpu: ClassVar[bool] = True
    output_nr: ClassVar[int] = 0

    @property
    def layout(self) -> torch.layout:
        """``torch.strided``: every Tensor is dense."""
        return self._data.layout

    @property
    def itemsize(self) -> int:
        """The size of an element in bytes."""
        return self._data.itemsize

    @property
    def nbytes(self) -> int:
        """The size of all elements in bytes."""
        return self._data.nbytes

    def element_size(self) -> int:
        """The size of an element in bytes."""
        return self._data.element_size()

    def ndimension(self) -> int:
        """The number of dimensions."""
        return self._data.ndim

    def nelement(self) -> int:
        """The number of elements."""
        return self._data.numel()

    def storage_offset(self) -> int:
        """How many elements of the memory lie before the first."""
        return int(self._data.storage_offset())

    def data_ptr(self) -> int:
        """The address of the first element."""
        return self._data.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        """The memory, as torch has it. Writes through it are not seen by the tape's checks."""
        return self._data.untyped_storage()

    def dim_order(self) -> tuple[int, ...]:
        """The dimensions in the order of their strides, the largest first."""
        return tuple(self._data.dim_order())

    def get_device(self) -> int:
        """-1: the CPU."""
        return -1

    def is_signed(self) -> bool:
        """Whether the dtype has negative numbers."""
        return self._data.is_signed()

    def is_nonzero(self) -> bool:
        """Whether the one element is not 0."""
        return bool(self)

    def is_same_size(self, other: Any) -> bool:
        """Whether the shapes are equal."""
        return bool(self._data.shape == other.shape)

    def is_set_to(self, tensor: Any) -> bool:
        """Whether both are the same memory, seen alike."""
        return self._data.is_set_to(getattr(tensor, "_data", tensor))

    def is_shared(self) -> bool:
        """Whether the memory is shared between processes."""
        return bool(self._data.is_shared())  # type: ignore[no-untyped-call]

    def share_memory_(self: T) -> T:
        """Move the memory to where other processes can share it."""
        self._data.share_memory_()  # type: ignore[no-untyped-call]
        return self

    def to_dense(self: T, dtype: Any = None) -> T:
        """The tensor itself, which is dense."""
        return self


def _answer(name: str) -> Any:
    def method(self: Attributes) -> bool:
        return False

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"False: no Tensor is {name.removeprefix('is_')}."
    return method


for _name in _NO.split():
    setattr(Attributes, f"is_{_name}", False)
for _name in _NEVER.split():
    setattr(Attributes, f"is_{_name}", _answer(f"is_{_name}"))
