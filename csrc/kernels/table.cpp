#include "kernels/table.h"

namespace tapegrad::TG_ISA {

#define TG_STRING_OF(name) #name
#define TG_STRING(name) TG_STRING_OF(name)
#define TG_F32(name, args) name<float>,
#define TG_F64(name, args) name<double>,
#define TG_PLAIN(name, args) name,

extern const Kernels table;
const Kernels table = {
    TG_STRING(TG_ISA), {TG_TYPED_KERNELS(TG_F32)}, {TG_TYPED_KERNELS(TG_F64)}, TG_PLAIN_KERNELS(TG_PLAIN)};

}  // namespace tapegrad::TG_ISA
